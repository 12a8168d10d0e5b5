"""Latency runs as a page: one run, one table, since times of two runs are never compared."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from swiftvlm_eval.leaderboard.compute.latency import LatencyRow, Tail, break_even, curves, latency_rows
from swiftvlm_eval.leaderboard.render.break_even import break_even_picture, title
from swiftvlm_eval.leaderboard.render.markdown import table
from swiftvlm_eval.leaderboard.render.plots import render
from swiftvlm_eval.leaderboard.render.text import MISSING, interval, markdown, number, spreadsheet
from swiftvlm_eval.results.latency_record import METHOD, LatencyRecord, Ratio
from swiftvlm_eval.results.latency_store import StoredLatency

PAGE, TITLE = "latency.md", "Latency"
INTRODUCTION = """\
Every method beside the unpruned model in one process, in turn, on the same inputs and random weights. One run is one
table: runs of another machine, precision or shape are not compared. Ratios are paired within a round, with 95 %
intervals by bootstrap over rounds. The unpruned model is measured twice; where it differs from itself the machine was
too busy, and no speed-up is given. A method whose counts follow the input (`sparsevlm_v1`) keeps other counts here
than on a trained model."""
TIMES = """\
Prefill: of the whole batch, vision tower and projector included. *Implied* is the speed-up of the decoder that the
executed FLOPs imply, selection included; *of implied* is the measured prefill speed-up, tower included, over it.
Decode: a step, which gives every prompt one token. Total: prefill and all steps."""
INSIDE = """\
Parts are medians over rounds of their own, in which the clock is read at every seam: their sum may exceed the prefill
above. Tower: with what a method does inside it. Selection: what the engine does at its boundaries, scoring, new rows,
masks and tables; its share is of the decoder's time. Decoder: its layers. Other: embeddings, packing, head. Cache:
keys and values after the prefill. Peak: tensors above weights and inputs, by {}."""
TAILS = """\
Of {} prefills and totals and {} single decoding steps. A quantile is given only where a longer time was to be expected
among so many: p90 from 10, p99 from 100."""
EMULATED = """\
* this processor has no bfloat16 instructions: products are emulated, several times slower than in float32, so that
  selection, most of which runs in float32, weighs less than elsewhere"""
_PEAKS = {
    "cuda_allocator": "the high-water mark of CUDA's allocator",
    "cpu_allocator_events": "the allocations and releases that torch reports, without buffers of math libraries",
}


def latency_files(runs: Sequence[StoredLatency], page: str = PAGE) -> dict[str, bytes]:
    """Returns the page, the pictures and a CSV of every figure, by file name; nothing without runs."""
    files: dict[str, bytes] = {}
    lines = [f"# {TITLE}", "", INTRODUCTION, ""]
    for run in runs:
        record = run.record
        lines += _run(record)
        if _drawn(record):
            figure = break_even_picture(record)
            files |= {f"{_name(record)}.{kind}": render(figure, kind) for kind in ("svg", "png")}
        files[f"{_name(record)}.csv"] = _csv(record).encode()
    return files | {page: ("\n".join(lines).rstrip() + "\n").encode()} if runs else {}


def _name(record: LatencyRecord) -> str:
    return f"latency-{record.stem}"


def _drawn(record: LatencyRecord) -> bool:
    return record.again.steady and any(each.role == METHOD for each in record.contenders)


def _run(record: LatencyRecord) -> list[str]:
    rows = latency_rows(record)
    lines = [f"## {markdown(title(record))}", ""]
    if not record.again.steady:
        lines += ["**Not steady: the unpruned model differs from itself, so this run gives no speed-up.**", ""]
    lines += [*_facts(record, rows), ""]
    if _drawn(record):
        lines += [f"![{markdown(title(record))}: share kept against time]({_name(record)}.svg)", ""]
    lines += [TIMES, "", _times(rows), ""]
    if record.settings.part_rounds:
        lines += [INSIDE.format(_PEAKS[record.peak_method or "cuda_allocator"]), "", _inside(rows), ""]
    lines += [TAILS.format(rows[0].prefill.count, rows[0].decode.count), "", _tails(rows), ""]
    versions = ", ".join(
        f"{name} {record.software.versions.get(name, 'unknown')}" for name in ("torch", "transformers")
    )
    commit = (record.software.commit or "unknown")[:7]
    return [*lines, f"{markdown(versions)}; commit {markdown(commit)}; {markdown(record.created)}; all figures: "
            f"[CSV]({_name(record)}.csv).", ""]  # fmt: skip


def _facts(record: LatencyRecord, rows: Sequence[LatencyRow]) -> list[str]:
    machine, settings, model, work = record.machine, record.settings, record.model, record.workload
    threads = f" ({machine.cpu_capability}), {machine.threads} thread(s)" if machine.cpu_capability else ""
    image = "" if work.image_size is None else f" of an image of {work.image_size[1]} x {work.image_size[0]} pixels"
    lines = [
        f"* {markdown(machine.name + threads)}; {settings.clock} time, {settings.rounds} rounds and"
        f" {settings.part_rounds} for the parts, {markdown(settings.attn)} attention",
        f"* decoder: hidden {model.hidden_size}, MLP {model.intermediate_size}, {model.num_layers} layers,"
        f" {model.num_heads} heads; a vision tower of {model.tower_layers} layers of {model.tower_width}; weights"
        f" {_mib(model.weight_bytes)} MiB",
        f"* {work.batch_size} prompt(s) of {work.visual_tokens} visual tokens{image} and {work.text_tokens} text"
        f" tokens; {work.output_tokens} tokens decoded",
        f"* the unpruned model against itself: prefill {_ratio(record.again.prefill)}, decode"
        f" {_ratio(record.again.decode)}",
    ]
    measured = [row for row in rows if row.role == METHOD and row.of_implied is not None]
    if measured:
        least, most = (pick(measured, key=lambda row: row.of_implied or 0) for pick in (min, max))
        lines.append(
            f"* of implied: from {least.of_implied:.2f} ({markdown(least.contender)}) to {most.of_implied:.2f}"
            f" ({markdown(most.contender)})"
        )
    if record.again.steady:
        for name, own in curves(record).items():
            points = [(row.share, row.prefill_time[0]) for row in own if row.prefill_time is not None]
            lines += [f"* {markdown(name)}: {break_even(points).words}"] if len(points) > 1 else []
    if machine.bfloat16_instructions is False and settings.dtype == "bfloat16":
        lines.append(EMULATED)
    return lines + [f"* not measured: {markdown(label)}: {markdown(why)}" for label, why in record.refused.items()]


def _times(rows: Sequence[LatencyRow]) -> str:
    header = ["", "tokens", "prefill ms", "speed-up [95 %]", "implied", "of implied"]
    header += ["decode ms", "speed-up [95 %]", "total ms", "speed-up [95 %]"]
    body = [
        [
            markdown(row.contender),
            f"{row.mean_visual_tokens:.1f}",
            _ms(row.prefill.p50),
            _ratio(row.prefill_speedup),
            f"{row.implied_speedup:.2f}",
            number(row.of_implied, 2),
            f"{row.decode_ms:.1f}",
            _ratio(row.decode_speedup),
            _ms(row.total.p50),
            _ratio(row.total_speedup),
        ]
        for row in rows
    ]
    return table(header, body)


def _inside(rows: Sequence[LatencyRow]) -> str:
    parts = list(rows[0].parts)
    header = ["", *(f"{part} ms" for part in parts), "selection %", "cache MiB", "peak MiB"]
    body = [
        [
            markdown(row.contender),
            *(_ms(row.parts[part]) for part in parts),
            number(None if row.selection_share is None else 100 * row.selection_share, 1),
            _mib(row.cache_bytes),
            _mib(row.peak_bytes),
        ]
        for row in rows
    ]
    return table(header, body)


def _tails(rows: Sequence[LatencyRow]) -> str:
    names = ("prefill", "decode", "total")
    ends = ("p50", "p90", "p99", "max")
    header = ["", *(f"{name} {end}" for name in names for end in ends)]
    body = [[markdown(row.contender), *(cell for name in names for cell in _ends(getattr(row, name)))] for row in rows]
    return table(header, body)


def _ends(tail: Tail) -> list[str]:
    return [_ms(each) for each in (tail.p50, tail.p90, tail.p99, tail.worst)]


def _csv(record: LatencyRecord) -> str:
    """Every figure of every contender, unrounded: seconds, bytes; the ends of intervals in columns of their own."""
    found = []
    for row in latency_rows(record):
        flat: dict[str, object] = {}
        for name, value in asdict(row).items():
            if isinstance(value, dict):
                flat |= {f"{name}_{key}": each for key, each in value.items()}
            elif name.endswith(("_time", "_speedup")) and name != "implied_speedup":
                flat |= dict(zip((name, f"{name}_low", f"{name}_high"), value or (None,) * 3, strict=True))
            else:
                flat[name] = spreadsheet(value) if isinstance(value, str) else value
        found.append(flat)
    return str(pd.DataFrame(found).to_csv(index=False, lineterminator="\n"))


def _ratio(found: Ratio | None) -> str:
    if found is None:
        return MISSING
    middle, low, high = found
    return f"{number(middle, 2)} {interval(low, high, 2)}"


def _ms(seconds: float | None) -> str:
    """Milliseconds with three digits that count."""
    if seconds is None:
        return MISSING
    return f"{1000 * seconds:.0f}" if seconds >= 0.1 else f"{1000 * seconds:.1f}"


def _mib(size: int | None) -> str:
    return number(None if size is None else size / 2**20, 1)
