"""Commands that look inside: `overlap` and `drift`."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from swiftvlm_eval.cli.options import (
    AttnOption,
    DeviceOption,
    DtypeOption,
    MethodsOption,
    ModelOption,
    RevisionOption,
    SeedOption,
    TasksOption,
    names,
)
from swiftvlm_eval.cli.terminal import console, errors, fail, folding_table, print_whole, quieten

if TYPE_CHECKING:
    from swiftvlm_eval.analysis.contenders import Contender
    from swiftvlm_eval.analysis.sampled_prompts import Prompt, SampledPrompts
    from swiftvlm_eval.models.checkpoint import Checkpoint

OutOption = Annotated[
    Path,
    typer.Option(
        "--out",
        "--output_path",
        help="Folder for JSON, CSV and picture; a second call goes on where the first one stopped.",
    ),
]
SamplesOption = Annotated[
    int, typer.Option("--samples", "--limit", min=1, help="Documents of each task, evenly spaced over it.")
]
BudgetOption = Annotated[
    str, typer.Option(help="A share of the visual tokens (1/3, 33%), or a count where every image has 576 (192).")
]
ComparedOption = Annotated[
    str,
    typer.Option(
        help="Comma-separated, as of `sweep`: name[option=value;option=value]; the first one sets the FLOPs.",
        show_default="swiftvlm, and swiftvlm without merging and bypass",
    ),
]
DROP_AND_BYPASS = "swiftvlm,swiftvlm[merge=false;bypass=false]"
Measure = Callable[["Prompt", "Checkpoint", Sequence["Contender"], int], dict[str, Any]]


def overlap_command(
    model: ModelOption,
    out: OutOption,
    methods: ComparedOption = DROP_AND_BYPASS,
    budget: BudgetOption = "1/3",
    tasks: TasksOption = "demo",
    samples: SamplesOption = 100,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn: AttnOption = "sdpa",
) -> None:
    """Compare what methods hold after their last stage with what the unpruned model looks at most there.

    The first method runs at the budget, the others at the budgets that cost as many FLOPs. Beside it: how much of the
    top tokens of later layers were in the bottom half at earlier ones. Attention of the last prompt token to the
    visual tokens, mean over heads. Writes overlap.json, overlap.csv, low_then_high.csv, overlap.png and the numbers of
    every document.
    """
    from swiftvlm_eval.analysis.figures import overlap_picture, to_png
    from swiftvlm_eval.analysis.overlap_run import TOPS, at_equal_flops, overlap_of, overlap_summary
    from swiftvlm_eval.analysis.tables import matrix_rows, overlap_rows, to_csv

    loading = {"revision": revision, "dtype": dtype, "device": device, "attn_implementation": attn}
    try:
        asked = read_contenders(methods, budget)
        checkpoint, prompts = load(model, tasks, samples, loading, budget)
        contenders = at_equal_flops(with_share(asked, budget, checkpoint), checkpoint, prompts.prompt(0, checkpoint))
        settings, found = collect("overlap", out, checkpoint, prompts, contenders, seed, overlap_of)
        summary = overlap_summary(contenders, found)
        labels = [contender.label for contender in contenders]
        title = f"{settings['model']}: {len(found)} documents of {', '.join(settings['tasks'])}"
        files = {
            "overlap.json": as_json({**settings, **summary}),
            "overlap.csv": to_csv(list(overlap_rows(labels, TOPS, found))),
            "low_then_high.csv": to_csv(list(matrix_rows(summary))),
            "overlap.png": to_png(overlap_picture(summary, title)),
        }
        write_all(out, files)
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        fail(error)
    table = folding_table("method", "budget", "FLOPs of first", "held", "chance", *(f"top {s:.0%}" for s in TOPS))
    for one in summary["methods"]:
        cost = f"{one['flops_of_first']:.3f}" + ("" if one["equal_flops"] else " NOT equal")
        cells = [
            one["label"],
            f"{one['budget']:.4g}",
            cost,
            f"{one['held']['mean']:.1f}",
            f"{one['chance']['mean']:.3f}",
        ]
        table.add_row(*map(escape, [*cells, *(interval(told) for told in one["overlap"].values())]))
    print_whole(table)
    say_files(out, files)


def drift_command(
    model: ModelOption,
    out: OutOption,
    methods: MethodsOption = "swiftvlm",
    budget: BudgetOption = "1/3",
    tasks: TasksOption = "demo",
    samples: SamplesOption = 100,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn: AttnOption = "sdpa",
    project: Annotated[
        bool, typer.Option("--project", help="Also draw the first document in two dimensions (needs scikit-learn).")
    ] = False,
) -> None:
    """Measure how far tokens that bypassed layers are, where they may come back, from the unpruned model's.

    Distance over the length of the unpruned state, and cosine, by size of the group; against the token without
    alignment and the token moved by a random other group's offset. Methods without a bypass are refused. Writes
    drift.json, drift.csv, drift.png and the numbers of every document; with `--project` also projection.png: stored,
    aligned and unpruned states of one document in the plane of their two first principal components.
    """
    from swiftvlm_eval.analysis.drift_run import drift_of, drift_summary, require_bypass
    from swiftvlm_eval.analysis.figures import drift_picture, to_png
    from swiftvlm_eval.analysis.projection import projection_picture, projections_of
    from swiftvlm_eval.analysis.tables import drift_rows, to_csv

    loading = {"revision": revision, "dtype": dtype, "device": device, "attn_implementation": attn}
    try:
        asked = read_contenders(methods, budget)
        for contender in asked:
            require_bypass(contender.label, contender.method)
        if project and find_spec("sklearn") is None:
            raise ValueError("project: needs scikit-learn: pip install 'swiftvlm-eval[projection]'")
        checkpoint, prompts = load(model, tasks, samples, loading, budget)
        contenders = with_share(asked, budget, checkpoint)
        settings, found = collect("drift", out, checkpoint, prompts, contenders, seed, drift_of)
        summary = drift_summary(contenders, found)
        title = f"{settings['model']}: {len(found)} documents of {', '.join(settings['tasks'])}"
        files = {
            "drift.json": as_json({**settings, **summary}),
            "drift.csv": to_csv(list(drift_rows([contender.label for contender in contenders], found))),
            "drift.png": to_png(drift_picture(summary, title)),
        }
        if project:
            first = prompts.prompt(0, checkpoint)
            drawn = projection_picture(projections_of(first, checkpoint, contenders, seed), first.key)
            files["projection.png"] = to_png(drawn)
        write_all(out, files)
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        fail(error)
    table = folding_table("method", "back before layer", "tokens", "distance / length", "cosine")
    for one in summary["methods"]:
        for stage in one["re_entries"]:
            for row in stage["rows"]:
                if row["size"] == "all":
                    cells = (one["label"], str(stage["boundary"] + 1), row["arm"])
                    table.add_row(*map(escape, (*cells, interval(row["relative"]), interval(row["cosine"]))))
    print_whole(table)
    say_files(out, files)


def read_contenders(methods: str, budget: str) -> list["Contender"]:
    """The methods as typed; their budgets are set when the model is known.

    Raises:
        ValueError: a malformed method or budget, or a method twice.
    """
    from swiftvlm_eval.analysis.contenders import Contender, require_different
    from swiftvlm_eval.pruning.budget import parse_budget
    from swiftvlm_eval.pruning.registry import make_method
    from swiftvlm_eval.sweep import parse_methods

    share = parse_budget(budget, 576)
    found = []
    for name, options in parse_methods(methods):
        told = ";".join(f"{key}={value}" for key, value in options.items())
        found.append(Contender(f"{name}[{told}]" if told else name, make_method(name, options), share))
    require_different(found)
    return found


def with_share(asked: Sequence["Contender"], budget: str, checkpoint: "Checkpoint") -> list["Contender"]:
    """The contenders at the budget as it reads for this model."""
    from dataclasses import replace

    from swiftvlm_eval.models.families import visual_tokens_per_image
    from swiftvlm_eval.pruning.budget import parse_budget

    share = parse_budget(budget, visual_tokens_per_image(checkpoint.model.config))
    return [replace(contender, budget=share) for contender in asked]


def load(
    model: str, tasks: str, samples: int, loading: dict[str, Any], budget: str
) -> tuple["Checkpoint", "SampledPrompts"]:
    """Documents, then the model; what is wrong with the first is known before weights are read.

    Raises:
        ValueError, RuntimeError, OSError: as raised by what is wrong.
    """
    from swiftvlm_eval.analysis.sampled_prompts import SampledPrompts
    from swiftvlm_eval.models.checkpoint import load_checkpoint
    from swiftvlm_eval.models.families import visual_tokens_per_image
    from swiftvlm_eval.pruning.budget import parse_budget
    from swiftvlm_eval.sweep.documents import Documents
    from swiftvlm_eval.sweep.processes import Processes

    quieten()
    if (count := Processes(loading["device"]).count) > 1:
        raise ValueError(f"{count} processes were started: allowed is one")
    with errors.status(f"loading {escape(tasks)}"):
        prompts = SampledPrompts(Documents(names("tasks", tasks)), samples)
    with errors.status(f"loading {escape(model)}"):
        checkpoint = load_checkpoint(
            model,
            before_weights=lambda config: parse_budget(budget, visual_tokens_per_image(config)),
            **loading,
        )
    return checkpoint, prompts


def collect(
    kind: str,
    out: Path,
    checkpoint: "Checkpoint",
    prompts: "SampledPrompts",
    contenders: Sequence["Contender"],
    seed: int,
    measure: Measure,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measures every document that is not there yet; the settings, and what is known of each document.

    Raises:
        ValueError: the folder holds another analysis, or another process is at work in it.
    """
    from swiftvlm_eval.analysis.contenders import model_described
    from swiftvlm_eval.analysis.sample_log import SampleLog
    from swiftvlm_eval.results.store import make_folder

    settings = {
        "analysis": kind,
        **model_described(checkpoint),
        "tasks": sorted({key.rpartition("/")[0] for key in prompts.keys}),
        "documents": len(prompts.keys),
        "seed": seed,
        "contenders": [contender.described for contender in contenders],
    }
    make_folder(out)
    with claimed(out, kind), Progress(console=errors, transient=True) as bar:
        log = SampleLog(out / f"{kind}.documents.jsonl", settings)
        if not log.found and (done := out / f"{kind}.json").exists():
            raise ValueError(f"{done}: is there without its {log.path.name}; allowed is another --out folder")
        task = bar.add_task(kind, total=len(prompts.keys), completed=0)
        for number, key in enumerate(prompts.keys):
            if key not in log.found:
                log.add(key, measure(prompts.prompt(number, checkpoint), checkpoint, contenders, seed))
            bar.advance(task)
    return settings, [log.found[key] for key in prompts.keys]


@contextmanager
def claimed(out: Path, kind: str) -> Iterator[None]:
    """Holds the right to work in a folder.

    Raises:
        ValueError: another process has it.
    """
    from swiftvlm_eval.sweep.claims import Claim

    claim = Claim(out / "claims", kind)
    if holder := claim.take():
        raise ValueError(f"out={out}: {holder}")
    try:
        yield
    finally:
        claim.release(done=True)


def as_json(values: dict[str, Any]) -> str:
    """JSON without numbers that are not finite."""
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def write_all(out: Path, files: dict[str, str] | dict[str, bytes] | dict[str, Any]) -> None:
    """Writes files, each whole or not at all."""
    from swiftvlm_eval.results.store import write_atomically

    for name, content in files.items():
        write_atomically(out / name, content if isinstance(content, bytes) else content.encode())


def interval(told: dict[str, Any]) -> str:
    """`0.42 [0.40, 0.44]`."""
    spread = "(one document)" if told["low"] is None else f"[{told['low']:.3f}, {told['high']:.3f}]"
    return f"{told['mean']:.3f} {spread}"


def say_files(out: Path, files: dict[str, Any]) -> None:
    """Says where everything is."""
    console.print(f"wrote {escape(', '.join(str(out / name) for name in files))}", soft_wrap=True)
