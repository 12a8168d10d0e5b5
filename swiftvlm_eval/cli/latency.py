"""The command on what methods cost by measurement: `latency`."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from swiftvlm_eval.cli.latency_table import print_latency, ratio, row_as_json
from swiftvlm_eval.cli.options import (
    AttnOption,
    BudgetsOption,
    DeviceOption,
    DtypeOption,
    MethodsOption,
)
from swiftvlm_eval.cli.terminal import errors, fail

if TYPE_CHECKING:
    import torch

    from swiftvlm_eval.efficiency.latency import Contender, Timing
    from swiftvlm_eval.efficiency.workload import Workload
    from swiftvlm_eval.pruning.contract import PruningMethod
    from swiftvlm_eval.results.latency_record import LatencyRecord

PLOTS = (".png", ".svg")


def latency_command(
    methods: MethodsOption = "random,fastv,swiftvlm",
    budgets: BudgetsOption = "1/3",
    shape: Annotated[
        str,
        typer.Option(
            help="llava-1.5-7b, llava-1.5-13b, llava-next-vicuna-7b, llava-next-mistral-7b, llava-next-vicuna-13b, "
            "with their own tower; or hidden, intermediate, layers, heads[, kv_heads] of a decoder."
        ),
    ] = "1024,2816,16,16",
    image_size: Annotated[
        str,
        typer.Option(
            help="WIDTHxHEIGHT in pixels: a LLaVA-NeXT of that shape, whose visual tokens follow. Without it 576 "
            "tokens of LLaVA-1.5, or 672x672 where the shape is a LLaVA-NeXT."
        ),
    ] = "",
    vision: Annotated[
        Literal["auto", "small", "clip-l"],
        typer.Option(help="The tower: a toy, or CLIP-L's 24 layers of 1024; auto is what belongs to the shape."),
    ] = "auto",
    text_tokens: Annotated[int, typer.Option(min=2, help="Text tokens of the prompt, beside the visual ones.")] = 64,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after each prefill.")] = 8,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--batch_size", min=1, help="Prompts a prefill, all of one length.")
    ] = 1,
    rounds: Annotated[
        int,
        typer.Option(min=3, help="Timed rounds; every contender runs once in each. p90 needs 10, p99 needs 100."),
    ] = 10,
    part_rounds: Annotated[
        int,
        typer.Option(min=0, help="Rounds for parts, cache and memory, after the others; 0 leaves them out."),
    ] = 3,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn: AttnOption = "sdpa",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's default.")] = 0,
    clock: Annotated[
        Literal["wall", "cpu"],
        typer.Option(help="Wall time, or CPU time of the process: for shared machines, with --threads 1."),
    ] = "wall",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "--output_path", help="Folder for a record, which `leaderboard` shows; created if needed."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="A new .png or .svg: share kept against time, with the line where a method stops to pay."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure methods side by side on random weights of any shape: no download.

    Prefill with its parts (tower, projector, selection, decoder), decoding, total, tails, cache and peak memory.
    Ratios are paired within a round; the row `stock again` must hold 1.00 in its interval, else the machine was too
    busy, which is said, and no speed-up is given. `of implied` is the measured over the FLOPs-implied prefill
    speed-up. Several budgets show up to which share a method pays for its own selection. A model that does not fit
    the memory is refused before it is built. Exit status 1 if a method cannot meet a budget, or the plot is missing.
    """
    from swiftvlm_eval.efficiency.latency import feasible
    from swiftvlm_eval.efficiency.memory import check_fits
    from swiftvlm_eval.efficiency.workload import read_workload
    from swiftvlm_eval.leaderboard.compute.latency import latency_rows
    from swiftvlm_eval.models.checkpoint import resolve_device, resolve_dtype
    from swiftvlm_eval.results.latency_store import write_latency

    try:
        _check_places(out, plot)
        lengths = {"text_tokens": text_tokens, "output_tokens": output_tokens, "batch_size": batch_size}
        workload = read_workload(shape, image_size, vision, **lengths)
        contenders, refused = feasible(workload, _contenders(methods, budgets, workload.visual_tokens))
        if not contenders:
            raise ValueError("; ".join(f"{label}: {why}" for label, why in refused.items()))
        target = resolve_device(device)
        if target.type not in ("cpu", "cuda"):
            raise ValueError(f"device={target.type!r}: allowed are cpu and cuda; no other clock and memory is known")
        if clock == "cpu" and target.type != "cpu":
            raise ValueError(f"clock='cpu': allowed with device={target.type} is wall, since a GPU works by itself")
        kind = resolve_dtype(dtype, target)
        check_fits(workload, kind, target, attn)
        asked: dict[str, Any] = {"attn": attn, "clock": clock, "rounds": rounds, "part_rounds": part_rounds}
        timings, weights, machine = _measured(workload, contenders, target, kind, threads, **asked)
        asked["dtype"] = str(kind).removeprefix("torch.")
        record = _record(workload, contenders, timings, asked, machine, weights, refused)
        if out is not None:
            errors.print(f"written: {escape(str(write_latency(record, out)))}", soft_wrap=True)
        rows = latency_rows(record)
    except (ValueError, ImportError) as error:
        fail(error)
    drawn = _draw(record, plot)
    if as_json:
        typer.echo(json.dumps([row_as_json(row) for row in rows], indent=2))
    else:
        print_latency(rows, record)
    for label, why in refused.items():
        errors.print(f"[yellow]not measured: {escape(label)}: {escape(why)}[/]", soft_wrap=True)
    if not record.again.steady:
        errors.print(
            f"[yellow]the stock model differs from itself (prefill {escape(ratio(record.again.prefill))}, decode "
            f"{escape(ratio(record.again.decode))}): the machine was too busy, no speed-up is given; measure again[/]",
            soft_wrap=True,
        )
    raise typer.Exit(1 if refused or not drawn else 0)


def _check_places(out: Path | None, plot: Path | None) -> None:
    """Looks before hours of measuring whether the results can be written.

    Raises:
        ValueError: they cannot.
    """
    from swiftvlm_eval.results.store import make_folder

    if out is not None and out.suffix == ".json":
        raise ValueError(f"out={str(out)!r}: allowed is a folder; the record in it gets a name of its own")
    if out is not None:
        make_folder(out)
    if plot is not None and plot.suffix not in PLOTS:
        raise ValueError(f"plot={str(plot)!r}: allowed is a file that ends in {' or '.join(PLOTS)}")
    if plot is not None and plot.exists():
        raise ValueError(f"plot={str(plot)!r}: is there already; name a new file")
    if plot is not None:
        make_folder(plot.parent)


def _contenders(methods: str, budgets: str, visual_tokens: int) -> list["Contender"]:
    """Label, method and budget of every configuration but vanilla.

    Raises:
        ValueError: a method, a budget, or two that have the same label.
    """
    from swiftvlm_eval.pruning.registry import make_method
    from swiftvlm_eval.sweep import make_grid, parse_methods

    pairs = [pair for pair in parse_methods(methods) if pair[0] != "vanilla"]
    if not pairs:
        raise ValueError(f"methods={methods!r}: allowed are methods beside vanilla, which is always measured")
    grid = make_grid(pairs, budgets.split(","), visual_tokens=visual_tokens)
    labels = [cell.label for cell in grid]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(
            f"budgets={budgets!r}: allowed are such that differ in three digits; {twice[0]} is there twice"
        )
    return [(cell.label, make_method(cell.method, cell.options), cell.budget) for cell in grid]


def _measured(
    workload: "Workload",
    contenders: list["Contender"],
    target: "torch.device",
    dtype: "torch.dtype",
    threads: int,
    *,
    rounds: int,
    part_rounds: int,
    **asked: Any,
) -> tuple[list["Timing"], int, dict[str, Any]]:
    """Timings, bytes of the weights, and the facts of the machine; torch's threads are left as they were."""
    import torch

    from swiftvlm_eval.efficiency.latency import WARMUP, measure, runs_of
    from swiftvlm_eval.efficiency.machine import machine_facts

    before = torch.get_num_threads()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        torch.set_num_threads(threads or before)
        with Progress(*columns, console=errors, transient=True) as progress:
            bar = progress.add_task("runs", total=runs_of(contenders, rounds + WARMUP, part_rounds))
            timings, weights = measure(
                workload,
                contenders,
                rounds=rounds,
                part_rounds=part_rounds,
                dtype=dtype,
                device=target,
                on_run=lambda: progress.advance(bar),
                **asked,
            )
        return timings, weights, machine_facts(target)
    finally:
        torch.set_num_threads(before)


def _record(
    workload: "Workload",
    contenders: list["Contender"],
    timings: list["Timing"],
    asked: dict[str, Any],
    machine: dict[str, Any],
    weights: int,
    refused: dict[str, str],
) -> "LatencyRecord":
    """What was measured, with the versions and the commit that measured it."""
    from swiftvlm_eval.efficiency.latency import WARMUP
    from swiftvlm_eval.efficiency.memory import PEAK_METHODS
    from swiftvlm_eval.leaderboard.compute.latency import paired_ratio
    from swiftvlm_eval.results.latency_record import CONTROLS, METHOD, LatencyRecord, LatencyWorkload
    from swiftvlm_eval.runs.provenance import commit, package_versions

    stock, again = timings[:2]
    prefill, decode = (paired_ratio(getattr(stock, name), getattr(again, name)) for name in ("prefill", "decode"))
    roles = [*CONTROLS, *[METHOD] * len(contenders)]
    known = {label: (method, budget) for label, method, budget in contenders}
    shape = {name: size for name, size in asdict(workload.shape).items() if name != "head_dim"}
    tower = {"tower_layers": workload.vision_layers, "tower_width": workload.vision_width, "tower_side": workload.side}
    sizes = {name: getattr(workload, name) for name in ("name", "family", "vocabulary")}
    return LatencyRecord.model_validate(
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": {**shape, **sizes, **tower, "weight_bytes": weights},
            "workload": {name: getattr(workload, name) for name in LatencyWorkload.model_fields},
            "settings": {"warmup": WARMUP, **asked},
            "machine": machine,
            "software": {"versions": package_versions(), "commit": commit()},
            "peak_method": PEAK_METHODS[machine["device"]] if asked["part_rounds"] else None,
            "again": {
                "prefill": prefill,
                "decode": decode,
                "steady": all(low <= 1 <= high for _, low, high in (prefill, decode)),
            },
            "contenders": [
                _contender(timing, role, *known.get(timing.label, (None, None)))
                for timing, role in zip(timings, roles, strict=True)
            ],
            "refused": refused,
        }
    )


def _contender(timing: "Timing", role: str, method: "PruningMethod | None", budget: float | None) -> dict[str, Any]:
    return {
        "label": timing.label,
        "role": role,
        "method": None if method is None else method.name,
        "options": {} if method is None else method.options,
        "budget": budget,
        "prefill_s": timing.prefill,
        "decode_s": timing.decode,
        "rows_per_layer": timing.rows_per_layer,
        "prefill_flops": timing.flops,
        "parts_s": dict(timing.parts),
        "steps_s": timing.steps,
        "cache_bytes": timing.cache_bytes,
        "peak_bytes": timing.peak_memory,
    }


def _draw(record: "LatencyRecord", plot: Path | None) -> bool:
    """Writes the picture, where one is asked for; whether nothing is missing."""
    from swiftvlm_eval.leaderboard.render.break_even import break_even_picture
    from swiftvlm_eval.leaderboard.render.plots import render
    from swiftvlm_eval.results.store import write_atomically

    if plot is None:
        return True
    try:
        picture = break_even_picture(record)
    except ValueError as error:
        errors.print(f"[yellow]no plot: {escape(str(error))}[/]", soft_wrap=True)
        return False
    write_atomically(plot, render(picture, plot.suffix.removeprefix(".")))
    errors.print(f"written: {escape(str(plot))}", soft_wrap=True)
    return True
