"""What --help adds to a command: its line in the list of commands, and two examples at the end of its own page."""

from collections.abc import Iterable

import typer

SUMMARIES = {
    "sweep": "run methods x budgets on a model, one record each",
    "leaderboard": "make the pages from records or lmms-eval's output",
    "records": "list records and what is unfinished",
    "import": "turn lmms-eval's output into records",
    "check": "a short run that finds a broken protocol",
    "submit-check": "check records as a pull request would be",
    "wanted": "list the runs that a table lacks",
    "export": "records in the schema of Every Eval Ever",
    "methods": "list the methods, or tell all of one",
    "flops": "FLOPs of methods at budgets, by formula",
    "estimate": "memory and hours of a sweep, from FLOPs",
    "latency": "measure prefill and decoding side by side",
    "select-layers": "find the layers at which to prune a model",
    "show": "draw what methods keep of an image",
    "overlap": "what methods hold of what the model looks at",
    "drift": "how far tokens that bypassed layers are off",
    "export-embeddings": "write visual rows for a serving engine",
    "demo": "compare methods on the embedded model, in minutes",
    "demo-data": "draw more scenes of the embedded benchmark",
}
"""Command -> what it does, in a terminal of 80 columns."""
EXAMPLES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "sweep": (
        (
            "SwiftVLM and one more method at two budgets on the paper's benchmarks:",
            (
                "swiftvlm-eval sweep --model llava-hf/llava-1.5-7b-hf \\",
                "  --methods 'vanilla,swiftvlm,fastv[layers=3]' --budgets 192,128 \\",
                "  --tasks paper --out results",
            ),
        ),
        (
            "what a grid file would run, and for how long, without running it:",
            (
                "swiftvlm-eval sweep --model demo --grid examples/ablation.yaml \\",
                "  --tasks demo --out ablation --dry-run",
            ),
        ),
    ),
    "leaderboard": (
        (
            "from what lmms-eval wrote:",
            (
                "lmms_eval --model vanilla_llava --tasks refcoco \\",
                "  --output_path runs --log_samples",
                "lmms_eval --model swiftvlm_llava --tasks refcoco \\",
                "  --output_path runs --log_samples",
                "swiftvlm-eval leaderboard runs --out pages",
            ),
        ),
        (
            "from the records of a sweep, with trial runs:",
            ("swiftvlm-eval leaderboard results --out pages --include-limited",),
        ),
    ),
    "records": (
        ("of a sweep, finished and unfinished ones:", ("swiftvlm-eval records results",)),
        ("of several folders:", ("swiftvlm-eval records results demo_run",)),
    ),
    "import": (
        (
            "one run:",
            ("swiftvlm-eval import runs/model/20260101_120000_results.json \\", "  --out records"),
        ),
        ("all of a folder:", ("swiftvlm-eval import runs/*/*_results.json --out records",)),
    ),
    "check": (
        ("of LLaVA-1.5, before the long runs:", ("swiftvlm-eval check --model llava-hf/llava-1.5-7b-hf",)),
        ("of the demo model:", ("swiftvlm-eval check --model demo --tasks demo --samples 50 --out checked",)),
    ),
    "submit-check": (
        ("a folder that you want to submit:", ("swiftvlm-eval submit-check leaderboards/submissions/my-runs",)),
        (
            "records of a sweep, beside other reference rows:",
            (
                "swiftvlm-eval submit-check results/records/*/* \\",
                "  --reference leaderboards > comment.md",
            ),
        ),
    ),
    "wanted": (
        ("of every model that has records:", ("swiftvlm-eval wanted leaderboards",)),
        (
            "of one model and budget:",
            (
                "swiftvlm-eval wanted results --model llava-hf/llava-1.5-7b-hf \\",
                "  --budgets 1/3 --benchmarks paper",
            ),
        ),
    ),
    "export": (
        (
            "the committed records:",
            (
                "swiftvlm-eval export leaderboards/demo/records --out eee \\",
                '  --organization "My group"',
            ),
        ),
        (
            "of a sweep of your own:",
            ("swiftvlm-eval export results/records --out eee --organization Us",),
        ),
    ),
    "methods": (
        ("the plans of one method, layer by layer:", ("swiftvlm-eval methods fastv --budgets 1/3,2/9",)),
        (
            "another option, and a method of your own:",
            ("swiftvlm-eval methods 'pdrop[positions=keep]' ./my.py:MyMethod \\", "  --visual-tokens 2880"),
        ),
    ),
    "flops": (
        ("all methods at the paper's budgets:", ("swiftvlm-eval flops",)),
        (
            "one method on another model, for a program:",
            ("swiftvlm-eval flops --model demo --methods swiftvlm --budgets 1/3 --json",),
        ),
    ),
    "estimate": (
        ("memory and hours of the paper's tables on an A100:", ("swiftvlm-eval estimate --gpu-tflops 312",)),
        (
            "of three methods at one budget on two tasks:",
            (
                "swiftvlm-eval estimate --methods vanilla,fastv,swiftvlm --budgets 192 \\",
                "  --tasks refcoco,textvqa",
            ),
        ),
    ),
    "latency": (
        (
            "LLaVA-1.5-7B on a GPU, with the picture of where methods pay:",
            (
                "swiftvlm-eval latency --shape llava-1.5-7b --device cuda --rounds 30 \\",
                "  --budgets 1/9,2/9,1/3,2/3,0.9 --plot pays.svg --out times",
            ),
        ),
        (
            "all methods on one core of a shared machine, for `leaderboard times`:",
            ("swiftvlm-eval latency --methods all --threads 1 --clock cpu --out times",),
        ),
    ),
    "select-layers": (
        ("of the demo model:", ("swiftvlm-eval select-layers --model demo --tasks demo --out layers",)),
        (
            "of LLaVA-1.5, two layers, from 200 documents of each task:",
            (
                "swiftvlm-eval select-layers --model llava-hf/llava-1.5-7b-hf \\",
                "  --tasks gqa,textvqa --samples 200 --stages 2 --out layers",
            ),
        ),
    ),
    "show": (
        (
            "a document of a benchmark:",
            (
                "swiftvlm-eval show --model demo --task demo_refcoco --doc 17 \\",
                "  --methods fastv,swiftvlm --out pictures",
            ),
        ),
        (
            "an image of your own:",
            (
                "swiftvlm-eval show --model llava-hf/llava-1.5-7b-hf --image cat.jpg \\",
                "  --question 'What is it?' --out pictures",
            ),
        ),
    ),
    "overlap": (
        ("SwiftVLM with and without bypass:", ("swiftvlm-eval overlap --model demo --samples 50 --out overlap",)),
        (
            "other methods, at equal FLOPs:",
            (
                "swiftvlm-eval overlap --model demo --methods 'swiftvlm,fastv[layers=2]' \\",
                "  --budget 2/9 --out overlap2",
            ),
        ),
    ),
    "drift": (
        ("on the demo's tasks:", ("swiftvlm-eval drift --model demo --samples 50 --out drift",)),
        (
            "on one task, with a projection of its first document:",
            (
                "swiftvlm-eval drift --model demo --tasks demo_gqa --project \\",
                "  --out drift2",
            ),
        ),
    ),
    "export-embeddings": (
        (
            "of one image, for vLLM:",
            (
                "swiftvlm-eval export-embeddings --model llava-hf/llava-1.5-7b-hf \\",
                "  --method visionzip --budget 1/3 --images cat.jpg --out rows",
            ),
        ),
        (
            "of all images of a folder, by a method that reads the question:",
            (
                "swiftvlm-eval export-embeddings --model llava-hf/llava-1.5-7b-hf \\",
                "  --method 'cdpruner[relevance=embed]' --question 'What is it?' \\",
                "  --out rows --images photos/*.jpg",
            ),
        ),
    ),
    "demo": (
        ("four methods at two budgets:", ("swiftvlm-eval demo",)),
        (
            "methods of your choice on the whole embedded benchmark:",
            (
                "swiftvlm-eval demo --methods 'vanilla,nuwa,fastv[layers=2]' --budgets 1/3 \\",
                "  --questions 1000 --out whole",
            ),
        ),
    ),
    "demo-data": (
        ("other scenes:", ("swiftvlm-eval demo-data --seed 1 --out scenes",)),
        ("a small training split:", ("swiftvlm-eval demo-data --split train --count 50 --out train",)),
    ),
}
"""Command -> what an example does, and its lines in a shell of 80 columns."""


def add_examples(app: typer.Typer) -> None:
    """Gives every command that has examples its own, and its line in the list."""
    for command in app.registered_commands:
        if command.name in EXAMPLES:
            command.short_help = SUMMARIES[command.name]
            command.epilog = epilog(EXAMPLES[command.name])


def epilog(examples: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """The text for click, which leaves the lines of a paragraph that begins so alone."""
    lines = ["Examples:"]
    for what, command in examples:
        lines += [f"  # {what}", *(f"  {line}" for line in command)]
    return "\n".join(["\b", *lines])
