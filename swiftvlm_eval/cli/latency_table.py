"""What `latency` prints: tables for people, rows for programs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from swiftvlm_eval.cli.terminal import print_whole

if TYPE_CHECKING:
    from swiftvlm_eval.leaderboard.compute.latency import LatencyRow
    from swiftvlm_eval.results.latency_record import LatencyRecord


def row_as_json(row: "LatencyRow") -> dict[str, Any]:
    """A row for programs: times in milliseconds, the rest as `LatencyRow` has it."""
    found = asdict(row)
    tails = {name: found.pop(name) for name in ("prefill", "decode", "total")}
    parts = found.pop("parts")
    milliseconds = {
        name: {end: value if end == "count" or value is None else 1000 * value for end, value in each.items()}
        for name, each in tails.items()
    }
    return found | {
        "prefill_ms": milliseconds["prefill"]["p50"],
        "total_ms": milliseconds["total"]["p50"],
        "parts_ms": {part: 1000 * seconds for part, seconds in parts.items()},
        "tails_ms": milliseconds,
    }


def print_latency(rows: list["LatencyRow"], record: "LatencyRecord") -> None:
    """Two tables: times, and what is inside."""
    from swiftvlm_eval.leaderboard.render.break_even import title

    settings = record.settings
    caption = f"{title(record)}, {settings.clock} time, {settings.rounds} rounds"
    headings = ["contender", "mean tokens", "prefill ms", "speed-up [95 %]", "implied", "of implied"]
    headings += ["decode ms", "speed-up [95 %]", "total ms", "speed-up [95 %]"]
    times = []
    for row in rows:
        cells = [row.contender, f"{row.mean_visual_tokens:.1f}", f"{1000 * row.prefill.p50:.1f}"]
        cells += [ratio(row.prefill_speedup), f"{row.implied_speedup:.2f}", _or_dash(row.of_implied, ".2f")]
        cells += [f"{row.decode_ms:.2f}", ratio(row.decode_speedup)]
        times.append([*cells, f"{1000 * row.total.p50:.1f}", ratio(row.total_speedup)])
    _table(headings, times, caption)
    if not settings.part_rounds:
        return
    inside = []
    for row in rows:
        parts = [f"{1000 * seconds:.1f}" for seconds in row.parts.values()]
        share = None if row.selection_share is None else 100 * row.selection_share
        sizes = [_or_dash(None if size is None else size / 2**20, ".1f") for size in (row.cache_bytes, row.peak_bytes)]
        inside.append([row.contender, *parts, _or_dash(share, ".1f"), *sizes])
    names = (f"{part} ms" for part in rows[0].parts)
    _table(
        ["contender", *names, "selection %", "cache MiB", "peak MiB"],
        inside,
        f"in {settings.part_rounds} rounds of their own; selection in % of the decoder; peak above weights and inputs",
    )


def _table(headings: list[str], body: list[list[str]], caption: str) -> None:
    table = Table(box=SIMPLE, caption=escape(caption))
    for number, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if number else "left")
    for cells in body:
        table.add_row(*(escape(cell) for cell in cells))
    print_whole(table)


def ratio(found: tuple[float, float, float] | None) -> str:
    """A median with its interval, or a dash."""
    return "-" if found is None else "{:.2f} [{:.2f}, {:.2f}]".format(*found)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
