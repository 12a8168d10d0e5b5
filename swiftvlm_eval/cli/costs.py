"""Commands on what methods cost: `flops`, `latency`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from swiftvlm_eval.cli.options import AttnOption, BudgetsOption, DeviceOption, MethodsOption
from swiftvlm_eval.cli.terminal import errors, fail, print_whole

if TYPE_CHECKING:
    from swiftvlm_eval.efficiency.latency import Timing, Workload
    from swiftvlm_eval.pruning.contract import PruningMethod


def flops_command(
    methods: MethodsOption = "all",
    budgets: BudgetsOption = "192,128",
    model: Annotated[str | None, typer.Option(help="Take the shape from this checkpoint's config.")] = None,
    shape: Annotated[str, typer.Option(help="Of the decoder: hidden, intermediate, layers, heads[, kv_heads].")] = "",
    visual_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="N, visual tokens that enter the decoder; by default the checkpoint's, or 576."),
    ] = None,
    text_tokens: Annotated[int, typer.Option(min=1, help="n_t; 70 reproduces the papers.")] = 70,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prefill FLOPs of methods at budgets, by formula: no weights needed.

    Counted as in the pruning papers: per layer 4nd^2 + 2n^2d + 3ndm, one per multiply-accumulate. `selection` is what
    this code executes to choose, score and merge; `paper` has 70 text tokens and what the method's own paper counts.
    35 text tokens stand before the image, the others ask. `paper` rows take the published schedule, `exact` rows meet
    the budget within half a token. Exit status 1 if a method cannot meet a budget.
    """
    from swiftvlm_eval.efficiency.table import flops_rows
    from swiftvlm_eval.sweep import parse_methods

    try:
        rows = flops_rows(parse_methods(methods), budgets.split(","), model, shape, visual_tokens, text_tokens)
    except ValueError as error:
        fail(error)
    status = 1 if any(row["tflops"] is None for row in rows) else 0
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        raise typer.Exit(status)
    table = Table(box=SIMPLE)
    numbers = ("mean", "layers T", "selection T", "total T", "paper T")
    for heading in ("method", "budget", "schedule", "rows per layer", *numbers, "selection, in millions", "note"):
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for row in rows:
        if row["tflops"] is None:
            table.add_row(row["method"], row["budget"], row["schedule"], *[""] * 7, escape(row["note"]))
            continue
        segments = " ".join(f"{rows_}x{layers}" for rows_, layers in row["rows_per_layer"])
        selection: dict[str, float] = row["selection_tflops"]
        items = ", ".join(f"{item.replace('_', ' ')} {1e6 * value:.3g}" for item, value in selection.items())
        sums = (row["layers_tflops"], sum(selection.values()), row["tflops"], row["paper_tflops"])
        cells = (row["method"], row["budget"], row["schedule"], segments, f"{row['mean_visual_tokens']:.1f}")
        table.add_row(*cells, *(f"{value:.4f}" for value in sums), items, escape(row["note"]))
    print_whole(table)
    raise typer.Exit(status)


def latency_command(
    methods: MethodsOption = "random,fastv,swiftvlm",
    budgets: BudgetsOption = "192",
    shape: Annotated[
        str, typer.Option(help="hidden, intermediate, layers, heads[, kv_heads]; 7B is 4096,11008,32,32.")
    ] = "1024,2816,16,16",
    text_tokens: Annotated[int, typer.Option(min=2, help="Text tokens of the prompt, beside 576 visual ones.")] = 64,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after each prefill.")] = 8,
    rounds: Annotated[int, typer.Option(min=3, help="Timed rounds; every contender runs once in each.")] = 10,
    vision: Annotated[
        Literal["small", "clip-l"], typer.Option(help="The tower: a toy, or CLIP-L's 24 layers of 1024.")
    ] = "small",
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"], typer.Option(help="Of weights and activations.")
    ] = "bfloat16",
    device: DeviceOption = "auto",
    attn: AttnOption = "sdpa",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's default.")] = 0,
    clock: Annotated[
        Literal["wall", "cpu"],
        typer.Option(help="Wall time, or CPU time of the process: for shared machines, with --threads 1."),
    ] = "wall",
    out: Annotated[
        Path | None, typer.Option(help="JSON file for the rows, the settings and the machine; a new one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure prefill and decoding of methods side by side, on random weights of any shape: no download.

    Ratios are paired within a round; the row `stock again` must hold 1.00 in its interval, else the machine was too
    busy, which is said. `of implied` is the measured over the FLOPs-implied prefill speed-up. A method that cannot
    meet a budget on that many layers is named, the others run, and the exit status is 1.
    """
    from swiftvlm_eval.efficiency.latency import Workload, feasible
    from swiftvlm_eval.efficiency.latency_report import latency_rows, steady
    from swiftvlm_eval.efficiency.table import parse_shape

    try:
        if out is not None and out.exists():
            raise ValueError(f"out={str(out)!r}: is there already; name a new file")
        tower = {"vision_layers": 24, "vision_width": 1024} if vision == "clip-l" else {}
        workload = Workload(parse_shape(shape), text_tokens=text_tokens, output_tokens=output_tokens, **tower)
        contenders, refused = feasible(workload, _contenders(methods, budgets))
        if not contenders:
            raise ValueError("; ".join(f"{label}: {why}" for label, why in refused.items()))
        asked: dict[str, Any] = {"dtype": dtype, "attn": attn, "clock": clock, "rounds": rounds}
        timings, machine = _measured(workload, contenders, device, threads, **asked)
    except (ValueError, ImportError) as error:
        fail(error)
    rows = list(latency_rows(timings))
    quiet = steady(rows)
    if out is not None:
        settings = {"workload": asdict(workload), **asked}
        _keep(out, {"settings": settings, "machine": machine, "steady": quiet, "refused": refused, "rows": rows})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        caption = f"{shape}, 576 + {text_tokens} tokens, {dtype}, {machine['device']}, {attn}, {clock} time"
        _print_latency(rows, f"{caption}, {rounds} rounds")
    for label, why in refused.items():
        errors.print(f"[yellow]not measured: {escape(label)}: {escape(why)}[/]", soft_wrap=True)
    if not quiet:
        errors.print("[yellow]the stock model differs from itself: the machine was too busy, measure again[/]")
    raise typer.Exit(1 if refused else 0)


def _contenders(methods: str, budgets: str) -> list[tuple[str, "PruningMethod", float]]:
    """Label, method and budget of every configuration but vanilla."""
    from swiftvlm_eval.pruning.registry import make_method
    from swiftvlm_eval.sweep import make_grid, parse_methods

    grid = make_grid([pair for pair in parse_methods(methods) if pair[0] != "vanilla"], budgets.split(","))
    return [(cell.label, make_method(cell.method, cell.options), cell.budget) for cell in grid]


def _measured(
    workload: "Workload",
    contenders: list[tuple[str, "PruningMethod", float]],
    device: str,
    threads: int,
    *,
    dtype: str,
    rounds: int,
    **asked: Any,
) -> tuple[list["Timing"], dict[str, Any]]:
    """The timings, and the facts of the machine while they were taken; torch's threads are left as they were."""
    import torch

    from swiftvlm_eval.efficiency.latency import WARMUP, measure, runs_of
    from swiftvlm_eval.efficiency.latency_report import machine_facts
    from swiftvlm_eval.models.checkpoint import resolve_device, resolve_dtype

    target, before = resolve_device(device), torch.get_num_threads()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        torch.set_num_threads(threads or before)
        with Progress(*columns, console=errors, transient=True) as progress:
            bar = progress.add_task("runs", total=runs_of(contenders, rounds + WARMUP))
            kind = resolve_dtype(dtype, target)
            timings = measure(
                workload,
                contenders,
                rounds=rounds,
                dtype=kind,
                device=target,
                on_run=lambda: progress.advance(bar),
                **asked,
            )
        return timings, machine_facts(target)
    finally:
        torch.set_num_threads(before)


def _keep(out: Path, found: dict[str, Any]) -> None:
    """Writes what was measured, with the versions and the commit that measured it."""
    from swiftvlm_eval.results.store import write_atomically
    from swiftvlm_eval.runs.provenance import commit, package_versions

    told = {**found, "versions": package_versions(), "commit": commit()}
    write_atomically(out, (json.dumps(told, indent=1) + "\n").encode())
    errors.print(f"written: {escape(str(out))}", soft_wrap=True)


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
    print_whole(table)
