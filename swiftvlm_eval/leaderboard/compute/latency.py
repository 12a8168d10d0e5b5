"""What a latency record says: paired ratios with intervals, tails, parts, and what the FLOPs promise.

A run in which the stock model differs from itself gives no ratio: its times are shown, its speed-ups are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.stats import bootstrap

from swiftvlm_eval.results.latency_record import (
    METHOD,
    PARTS,
    STOCK,
    LatencyContender,
    LatencyModel,
    LatencyRecord,
    Ratio,
)

_QUANTILES = (0.9, 0.99)


@dataclass(frozen=True)
class Tail:
    """The slow end of times: a quantile is there only if a time beyond it was to be expected among so many.

    Attributes:
        count: Times, all of them warm.
        p50: Median, in seconds like the others.
        p90: None below 10 times.
        p99: None below 100 times.
        worst: The longest.
    """

    count: int
    p50: float
    p90: float | None
    p99: float | None
    worst: float


@dataclass(frozen=True)
class LatencyRow:
    """One contender, in figures.

    Attributes:
        contender: Label.
        role: Of `LatencyContender`.
        method: Registered name.
        mean_visual_tokens: Executed rows per layer.
        share: These, as a share of N.
        prefill: Tail of the prefill of the whole batch.
        decode: Tail of a decoding step: single steps where these were timed, else means of a round.
        total: Tail of prefill and decoding together.
        decode_ms: Median over the untouched rounds of a step's mean.
        prefill_time: Prefill relative to the stock model's, with its interval; None in a run that is not steady.
        prefill_speedup: The inverse ratio.
        decode_speedup: Of decoding.
        total_speedup: Of both together.
        implied_speedup: Of the decoder's prefill, by the executed FLOPs, selection included.
        of_implied: Measured prefill speed-up over the implied one. The measured prefill holds the vision tower and
            the projector, which no decoder method makes faster, the implied one the decoder alone.
        parts: Median seconds by part of the prefill.
        selection_share: Selection as a share of the decoder's time with selection, median over rounds.
        cache_bytes: Keys and values after the prefill.
        peak_bytes: Tensors above weights and inputs.
    """

    contender: str
    role: str
    method: str | None
    mean_visual_tokens: float
    share: float
    prefill: Tail
    decode: Tail
    total: Tail
    decode_ms: float
    prefill_time: Ratio | None
    prefill_speedup: Ratio | None
    decode_speedup: Ratio | None
    total_speedup: Ratio | None
    implied_speedup: float
    of_implied: float | None
    parts: dict[str, float]
    selection_share: float | None
    cache_bytes: int | None
    peak_bytes: int | None


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Median of the ratios within a round, with a 95 % bootstrap interval over rounds; the range below three."""
    ratios = np.asarray(numerator) / np.asarray(denominator)
    middle = float(np.median(ratios))
    if len(ratios) < 3 or np.ptp(ratios) == 0:
        return middle, float(ratios.min()), float(ratios.max())
    interval = bootstrap((ratios,), np.median, n_resamples=2000, method="percentile", rng=0).confidence_interval
    return middle, float(interval.low), float(interval.high)


def tail(times: Sequence[float]) -> Tail:
    """The tail of some times; see `Tail`."""
    stated = {q: len(times) * (1 - q) > 1 - 1e-9 for q in _QUANTILES}
    p90, p99 = (float(np.quantile(times, q)) if stated[q] else None for q in _QUANTILES)
    return Tail(len(times), float(median(times)), p90, p99, max(times))


def latency_rows(record: LatencyRecord) -> list[LatencyRow]:
    """One row per contender, in the record's order."""
    stock = record.contenders[0]
    return [_row(record, stock, each) for each in record.contenders]


def _row(record: LatencyRecord, stock: LatencyContender, each: LatencyContender) -> LatencyRow:
    totals = _totals(record, stock), _totals(record, each)
    steady = record.again.steady
    speedup = paired_ratio(stock.prefill_s, each.prefill_s)
    implied = stock.prefill_flops / each.prefill_flops
    shares = [
        selection / (selection + decoder)
        for selection, decoder in zip(each.parts_s.get("selection", ()), each.parts_s.get("decoder", ()), strict=True)
    ]
    return LatencyRow(
        contender=each.label,
        role=each.role,
        method=each.method,
        mean_visual_tokens=each.mean_rows,
        share=each.mean_rows / record.workload.visual_tokens,
        prefill=tail(each.prefill_s),
        decode=tail(each.steps_s or each.decode_s),
        total=tail(totals[1]),
        decode_ms=1000 * median(each.decode_s),
        prefill_time=paired_ratio(each.prefill_s, stock.prefill_s) if steady else None,
        prefill_speedup=speedup if steady else None,
        decode_speedup=paired_ratio(stock.decode_s, each.decode_s) if steady else None,
        total_speedup=paired_ratio(*totals) if steady else None,
        implied_speedup=implied,
        of_implied=speedup[0] / implied if steady else None,
        parts={part: median(each.parts_s[part]) for part in PARTS if each.parts_s},
        selection_share=median(shares) if shares else None,
        cache_bytes=each.cache_bytes,
        peak_bytes=each.peak_bytes,
    )


def _totals(record: LatencyRecord, each: LatencyContender) -> list[float]:
    """Seconds of prefill and decoding together, round by round."""
    steps = record.workload.output_tokens
    return [prefill + steps * decode for prefill, decode in zip(each.prefill_s, each.decode_s, strict=True)]


def implied_time(record: LatencyRecord, share: float) -> float:
    """Prefill FLOPs of the decoder with that share of N in every layer, and no selection, relative to all of N.

    Counted as in FastV, arXiv 2403.06764: per layer 4nd^2 + 2n^2d + 3ndm.
    """
    whole = record.workload.visual_tokens
    text = record.workload.text_tokens
    return _layer(whole * share + text, record.model) / _layer(whole + text, record.model)


def _layer(rows: float, model: LatencyModel) -> float:
    d, keys = model.hidden_size, model.hidden_size * model.num_kv_heads // model.num_heads
    return rows * d * (2 * d + 2 * keys) + 2 * rows**2 * d + 3 * rows * d * model.intermediate_size


@dataclass(frozen=True)
class BreakEven:
    """Up to which share of the visual tokens a method pays for its own selection, by its measured points.

    Attributes:
        share: At which the line through the points crosses the unpruned time; the largest measured share where it
            never does; None where no point is faster.
        crossed: The line does cross.
    """

    share: float | None
    crossed: bool

    @property
    def words(self) -> str:
        """For a legend or a cell."""
        if self.share is None:
            return "slower at every measured share"
        return f"pays up to {self.share:.2f}" if self.crossed else f"pays at all measured, up to {self.share:.2f}"


def break_even(points: Sequence[tuple[float, float]]) -> BreakEven:
    """Where a method's time crosses that of the unpruned model, going up in share from its fastest points.

    Args:
        points: (share kept, time relative to the unpruned model), measured.
    """
    ordered = sorted(points)
    if not ordered or ordered[0][1] >= 1:
        return BreakEven(None, crossed=False)
    for (before, low), (after, high) in zip(ordered, ordered[1:], strict=False):
        if high >= 1:
            return BreakEven(before + (after - before) * (1 - low) / (high - low), crossed=True)
    return BreakEven(ordered[-1][0], crossed=False)


def curves(record: LatencyRecord) -> dict[str, list[LatencyRow]]:
    """The methods' rows by what is measured at several budgets (a name with its options), by rising share."""
    found: dict[str, list[LatencyRow]] = {}
    rows = {row.contender: row for row in latency_rows(record)}
    for each in record.contenders:
        if each.role == METHOD:
            found.setdefault(curve_name(each), []).append(rows[each.label])
    return {name: sorted(own, key=lambda row: row.share) for name, own in found.items()}


def curve_name(contender: LatencyContender) -> str:
    """A contender's label without its budget."""
    return contender.label.rpartition(" ")[0] or contender.label


def stock_row(rows: Sequence[LatencyRow]) -> LatencyRow:
    """The unpruned model's."""
    return next(row for row in rows if row.role == STOCK)
