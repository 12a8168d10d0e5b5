"""Commands that run or describe methods: `sweep`, `demo`, `methods`, `flops`, `demo-data`."""

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

console = Console()
errors = Console(stderr=True)

DEMO_METHODS = "vanilla,random,fastv,swiftvlm"
DEMO_BUDGETS = "1/3,2/9"
DEMO_QUESTIONS = 60

MethodsOption = Annotated[
    str,
    typer.Option(help="Comma-separated; `all` for every method; options as name[option=value;option=value]."),
]
BudgetsOption = Annotated[
    str, typer.Option(help="Comma-separated; counts for 576 tokens (192) or shares of the visual tokens (0.333, 1/3).")
]


def fail(error: Exception) -> NoReturn:
    """Prints one clear message and ends with status 2."""
    errors.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True)
    raise typer.Exit(2)


def sweep_command(
    model: Annotated[str, typer.Option(help="Hub id or folder of a LLaVA checkpoint, or `demo` (embedded).")],
    out: Annotated[Path, typer.Option(help="Folder for records; a second call goes on where the first one stopped.")],
    methods: MethodsOption = "all",
    budgets: BudgetsOption = "192,128",
    tasks: Annotated[str, typer.Option(help="Comma-separated lmms-eval tasks or groups.")] = "paper",
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds for random pruning.")] = "0",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Documents per task, to try things out; such records are marked.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="1 is the protocol of the published numbers.")] = 1,
    revision: Annotated[str | None, typer.Option(help="Hub revision of the checkpoint.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float16, bfloat16 or float32.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    attn: Annotated[str, typer.Option(help="sdpa, eager, flash_attention_2 or flash_attention_3.")] = "sdpa",
    image_mode: Annotated[str, typer.Option(help="pad (the protocol) or hf_default.")] = "pad",
) -> None:
    """Run methods x budgets on one loaded model through lmms-eval, one record per configuration.

    A configuration whose record is there is not run again, and an interrupted one goes on from its stored answers. A
    budget that a method cannot meet is refused with the feasible range; the others run, and the exit status is 1.

    Example: swiftvlm-eval sweep --model llava-hf/llava-1.5-7b-hf --budgets 192,128 --tasks paper --out results
    """
    loading = {
        "revision": revision,
        "dtype": dtype,
        "device": device,
        "attn_implementation": attn,
        "image_mode": image_mode,
    }
    try:
        seed_numbers = [int(seed) for seed in seeds.split(",")]
        refused = run_sweep(
            model, out, methods, budgets, tasks, limit=limit, batch_size=batch_size, seeds=seed_numbers, **loading
        )
    except (ValueError, RuntimeError, TypeError) as error:
        fail(error)
    console.print(
        f"records in {escape(str(out / 'records'))}; `swiftvlm-eval leaderboard {escape(str(out))} --out DIR`"
    )
    raise typer.Exit(1 if refused else 0)


def run_sweep(
    model: str,
    out: Path,
    methods: str,
    budgets: str,
    tasks: str,
    *,
    limit: int | None = None,
    batch_size: int = 1,
    seeds: list[int] | None = None,
    **loading: Any,
) -> int:
    """Runs a grid and prints what becomes of each configuration; returns how many were refused."""
    from swiftvlm_eval.sweep import Sweep, make_grid, parse_methods

    grid = make_grid(parse_methods(methods), budgets.split(","), seeds or [0])
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out}: not a folder")
    quieten()
    from swiftvlm_eval.llava.checkpoint import load_checkpoint

    with console.status(f"loading {escape(model)}"):
        checkpoint = load_checkpoint(model, **loading)
    sweep = Sweep(checkpoint, [task.strip() for task in tasks.split(",")], out, batch_size=batch_size, limit=limit)
    refused = 0
    for number, outcome in enumerate(sweep.run(grid), start=1):
        refused += outcome.status == "refused"
        colour = {"done": "green", "kept": "cyan", "refused": "red"}[outcome.status]
        note = f": {outcome.reason}" if outcome.reason else ""
        label = escape(outcome.configuration.label)
        console.print(f"{number}/{len(grid)} {label} [{colour}]{outcome.status}[/]{escape(note)}", soft_wrap=True)
    return refused


def quieten() -> None:
    """Leaves the terminal to progress bars and results."""
    import datasets
    import transformers
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING", format="{level}: {message}")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for records and leaderboard.")] = Path("demo_run"),
    methods: MethodsOption = DEMO_METHODS,
    budgets: BudgetsOption = DEMO_BUDGETS,
    questions: Annotated[
        int, typer.Option(min=2, help="Questions per task; the embedded benchmark has 500 or more of each.")
    ] = DEMO_QUESTIONS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier results in the folder.")] = False,
) -> None:
    """Compare methods on the embedded demo model and print the leaderboard; a few minutes on a laptop, no download.

    The model is tiny and its scenes are drawn by a program: the numbers are the demo model's, never LLaVA's.
    """
    from swiftvlm_eval.leaderboard import build

    if fresh and (out / "records").is_dir():
        for part in ("records", "lmms_eval", "partial"):
            shutil.rmtree(out / part, ignore_errors=True)
    try:
        refused = run_sweep("demo", out, methods, budgets, "demo", limit=questions, device="cpu")
        report = build([out / "records"], out / "leaderboard", include_limited=True)
    except (ValueError, RuntimeError, TypeError) as error:
        fail(error)
    from swiftvlm_eval.cli import _board_table, _print_whole

    for board in report.boards:
        _print_whole(_board_table(board))
    console.print(
        f"The first {questions} questions of each task; the demo model's numbers, not LLaVA's. "
        f"Pages: {escape(str(out / 'leaderboard'))}",
        soft_wrap=True,
    )
    raise typer.Exit(1 if refused else 0)


def check_command(
    model: Annotated[str, typer.Option(help="Hub id or folder of a LLaVA checkpoint, or `demo`.")],
    tasks: Annotated[str, typer.Option(help="Comma-separated lmms-eval tasks or groups.")] = "refcoco,textvqa",
    samples: Annotated[int, typer.Option(min=2, help="Documents per task; 200 settle the box frame.")] = 200,
    out: Annotated[Path, typer.Option(help="Folder for the pilot's output.")] = Path("check"),
    revision: Annotated[str | None, typer.Option(help="Hub revision of the checkpoint.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float16, bfloat16 or float32.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
) -> None:
    """Run a small unpruned pilot and tell whether the protocol is intact before the long runs begin.

    Gates: empty and unparsable answers, boxes as fractions, the right box frame ahead of the other, scores in the
    range of published runs. Exit status 1 if one fails.

    Example: swiftvlm-eval check --model llava-hf/llava-1.5-7b-hf --samples 200
    """
    from swiftvlm_eval.health import check_samples, read_samples

    try:
        run_sweep(model, out, "vanilla", "1", tasks, limit=samples, revision=revision, dtype=dtype, device=device)
        from transformers import AutoConfig

        from swiftvlm_eval.demo import checkpoint_path
        from swiftvlm_eval.llava.checkpoint import FAMILIES

        source = str(checkpoint_path()) if model == "demo" else model
        family = FAMILIES[AutoConfig.from_pretrained(source, revision=revision).model_type]
        gates = check_samples(family, read_samples(out / "lmms_eval"), published=model != "demo")
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        fail(error)
    table = Table("task", "gate", "verdict", "seen", "what to do", box=SIMPLE)
    colours = {"pass": "green", "warn": "yellow", "fail": "red"}
    for gate in gates:
        advice = "" if gate.verdict == "pass" else escape(gate.advice)
        verdict = f"[{colours[gate.verdict]}]{gate.verdict}[/]"
        table.add_row(escape(gate.task), escape(gate.what), verdict, escape(gate.seen), advice)
    console.print(table)
    raise typer.Exit(1 if any(gate.verdict == "fail" for gate in gates) else 0)


def methods_command() -> None:
    """List the pruning methods with their sources and options."""
    from dataclasses import fields

    from swiftvlm_eval.pruning.methods import method_class, method_names

    table = Table("method", "source", "what it does", "options (default)", box=SIMPLE)
    for name in method_names():
        cls = method_class(name)
        options = ", ".join(f"{option.name}={option.default}" for option in fields(cls))
        table.add_row(name, escape(cls.source), escape(cls.summary), escape(options))
    console.print(table)


def flops_command(
    methods: MethodsOption = "all",
    budgets: BudgetsOption = "192,128",
    model: Annotated[str | None, typer.Option(help="Take the shape from this checkpoint's config.")] = None,
    shape: Annotated[str, typer.Option(help="hidden,intermediate,layers,heads[,kv_heads] of the decoder.")] = "",
    visual_tokens: Annotated[int, typer.Option(min=1, help="N, visual tokens that enter the decoder.")] = 576,
    text_tokens: Annotated[int, typer.Option(min=1, help="n_t; 70 reproduces the papers.")] = 70,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prefill FLOPs of methods at budgets, by formula: no weights needed.

    Counted as in the pruning papers: per layer 4nd^2 + 2n^2d + 3ndm, one per multiply-accumulate in projections and
    MLP. `paper` rows take the published schedule, `exact` rows meet the budget within half a token.
    """
    from swiftvlm_eval.efficiency.table import flops_rows
    from swiftvlm_eval.sweep import parse_methods

    try:
        rows = flops_rows(parse_methods(methods), budgets.split(","), model, shape, visual_tokens, text_tokens)
    except ValueError as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=SIMPLE)
    for heading in ("method", "budget", "schedule", "rows per layer", "mean", "TFLOPs", "overhead", "note"):
        table.add_column(heading, justify="right" if heading in ("mean", "TFLOPs", "overhead") else "left")
    for row in rows:
        if row["tflops"] is None:
            table.add_row(row["method"], row["budget"], row["schedule"], "", "", "", "", escape(row["note"]))
            continue
        segments = " ".join(f"{rows_}x{layers}" for rows_, layers in row["rows_per_layer"])
        overhead = " + ".join(f"{name} {value:.4f}" for name, value in row["overhead_tflops"].items())
        cells = (row["method"], row["budget"], row["schedule"], segments, f"{row['mean_visual_tokens']:.1f}")
        table.add_row(*cells, f"{row['tflops']:.2f}", overhead, escape(row["note"]))
    from swiftvlm_eval.cli import _print_whole

    _print_whole(table)


def latency_command(
    methods: MethodsOption = "random,fastv,swiftvlm",
    budgets: BudgetsOption = "192",
    shape: Annotated[
        str, typer.Option(help="hidden,intermediate,layers,heads[,kv_heads]; 7B is 4096,11008,32,32.")
    ] = "1024,2816,16,16",
    text_tokens: Annotated[int, typer.Option(min=2, help="Text tokens of the prompt, beside 576 visual ones.")] = 64,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after each prefill.")] = 8,
    rounds: Annotated[int, typer.Option(min=3, help="Timed rounds; every contender runs once in each.")] = 10,
    vision: Annotated[str, typer.Option(help="small (a toy tower) or clip-l (24 layers of 1024).")] = "small",
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    attn: Annotated[str, typer.Option(help="sdpa, eager, flash_attention_2 or flash_attention_3.")] = "sdpa",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's default.")] = 0,
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: process CPU time, for shared machines with --threads 1.")
    ] = "wall",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure prefill and decoding of methods side by side, on random weights of any shape: no download.

    Ratios are paired within a round; the row `stock again` must hold 1.00 in its interval, else the machine was too
    busy. `of implied` is the measured over the FLOPs-implied prefill speed-up.

    Example: swiftvlm-eval latency --shape 4096,11008,32,32 --vision clip-l --device cuda --rounds 30
    """
    import torch

    from swiftvlm_eval.efficiency.latency import Workload, latency_rows, measure
    from swiftvlm_eval.efficiency.table import parse_shape
    from swiftvlm_eval.llava.checkpoint import resolve_device, resolve_dtype
    from swiftvlm_eval.pruning.methods import make_method
    from swiftvlm_eval.sweep import make_grid, parse_methods

    try:
        if vision not in ("small", "clip-l") or clock not in ("wall", "cpu"):
            raise ValueError(f"vision={vision!r}, clock={clock!r}: allowed are small, clip-l and wall, cpu")
        tower = {"vision_layers": 24, "vision_width": 1024} if vision == "clip-l" else {}
        workload = Workload(parse_shape(shape), text_tokens=text_tokens, output_tokens=output_tokens, **tower)
        target = resolve_device(device)
        grid = make_grid([pair for pair in parse_methods(methods) if pair[0] != "vanilla"], budgets.split(","))
        contenders = [(cell.label, make_method(cell.method, cell.options), cell.budget) for cell in grid]
        if threads:
            torch.set_num_threads(threads)
        with Progress(console=errors, transient=True) as progress:
            bar = progress.add_task("rounds", total=rounds + 2)
            timings = measure(
                workload,
                contenders,
                rounds=rounds,
                dtype=resolve_dtype(dtype, target),
                device=target,
                attn=attn,
                clock=clock,  # type: ignore[arg-type]
                on_round=lambda done: progress.update(bar, completed=done),
            )
    except (ValueError, ImportError) as error:
        fail(error)
    rows = list(latency_rows(workload, timings))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _print_latency(
        rows, f"{shape}, 576 + {text_tokens} tokens, {dtype}, {target}, {attn}, {clock} time, {rounds} rounds"
    )


def _print_latency(rows: list[dict[str, Any]], caption: str) -> None:
    table = Table(box=SIMPLE, caption=escape(caption))
    headings = (
        "contender",
        "mean tokens",
        "prefill ms",
        "speed-up [95 %]",
        "implied",
        "of implied",
        "decode ms",
        "speed-up [95 %]",
        "peak MiB",
    )
    for number, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if number else "left")
    for row in rows:
        prefill, decode = (
            "{:.2f} [{:.2f}, {:.2f}]".format(*row[key]) for key in ("prefill_speedup", "decode_speedup")
        )
        peak = "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}"
        cells = (
            f"{row['mean_visual_tokens']:.1f}",
            f"{row['prefill_ms']:.1f}",
            prefill,
            f"{row['implied_speedup']:.2f}",
        )
        more = (f"{row['of_implied']:.2f}", f"{row['decode_ms']:.2f}", decode, peak)
        table.add_row(*(escape(cell) for cell in (row["contender"], *cells, *more)))
    from swiftvlm_eval.cli import _print_whole

    _print_whole(table)


def demo_data_command(
    out: Annotated[Path, typer.Option(help="Folder for the parquet files.")],
    split: Annotated[str, typer.Option(help="train or val; their seeds never meet.")] = "val",
    count: Annotated[int, typer.Option(min=1, help="Questions per task.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other scenes.")] = 0,
) -> None:
    """Draw more of the demo benchmark's scenes and questions, in the schemas of the hub data sets."""
    from swiftvlm_eval.demo.data import generate_split

    try:
        for name, rows in generate_split(split, count, seed, out).items():  # type: ignore[arg-type]
            console.print(f"wrote {rows} rows of {name} to {escape(str(out))}", soft_wrap=True)
    except ValueError as error:
        fail(error)


def add_commands(app: typer.Typer) -> None:
    """Adds this module's commands to the command line."""
    app.command("sweep")(sweep_command)
    app.command("demo")(demo_command)
    app.command("check")(check_command)
    app.command("methods")(methods_command)
    app.command("flops")(flops_command)
    app.command("latency")(latency_command)
    app.command("demo-data")(demo_data_command)
