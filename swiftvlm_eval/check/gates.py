"""Gates of a small unpruned run: is the protocol intact (image path, prompt, box frame) before hours of runs begin?"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from scipy.stats import bootstrap

from swiftvlm_eval.leaderboard.compute.units import units_of
from swiftvlm_eval.results.benchmarks import Benchmark, shipped_benchmarks
from swiftvlm_eval.results.lmms_output import has_failed, sample_line
from swiftvlm_eval.results.samples import SampleLine

Verdict = Literal["pass", "warn", "fail"]
Sample = Mapping[str, Any]
# How the hub spells an option that is not there.
_NO_OPTION = ("None", "nan", "")


@dataclass(frozen=True)
class Gate:
    """One checked property.

    Attributes:
        task: lmms-eval task.
        what: the property.
        verdict: pass, warn (cannot be told, or unusual) or fail.
        seen: what was measured.
        advice: what to do unless it passed.
    """

    task: str
    what: str
    verdict: Verdict
    seen: str
    advice: str = ""


def expectations() -> dict[str, Any]:
    """The shipped gates; see `gates.yaml`."""
    loaded: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("gates.yaml").read_text(encoding="utf-8"))
    return loaded


def read_samples(folder: Path) -> dict[str, list[Sample]]:
    """Per-sample lines of one run's lmms-eval output folder, by task."""
    found: dict[str, list[Sample]] = {}
    for path in sorted(folder.rglob("*_samples_*.jsonl")):
        task = path.stem.split("_samples_", 1)[1]
        found[task] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return found


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; 0 of nothing."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval of a mean; any number at all if there is too little to tell."""
    if len(values) < 2 or min(values) == max(values):
        return (values[0], values[0]) if len(values) > 30 else (-math.inf, math.inf)
    found = bootstrap((values,), mean, vectorized=False, n_resamples=999, method="percentile", rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def check_grounding(task: str, samples: Sequence[Sample], gates: Mapping[str, float]) -> list[Gate]:
    """Gates of a task with boxes: parsing, scale, frame."""
    unparsable = mean(sample["unparsable"] for sample in samples)
    parsed = [sample["parsed"] for sample in samples if not sample["unparsable"]]
    fractions = mean(entry["scale"] == "fraction" for entry in parsed)
    main, other = (mean(sample[key] for sample in samples) for key in ("acc@0.5", "acc@0.5_alt"))
    prompt = "check the prompt (system sentence, one image placeholder) and that the checkpoint is unpruned"
    found = [
        Gate(
            task,
            f"answers without a box at most {gates['unparsable_max']:.0%}",
            "pass" if unparsable <= gates["unparsable_max"] else "fail",
            f"{unparsable:.1%}",
            prompt,
        ),
        Gate(
            task,
            f"boxes as fractions at least {gates['fraction_scale_min']:.0%}",
            "pass" if parsed and fractions >= gates["fraction_scale_min"] else "fail",
            f"{fractions:.1%} of {len(parsed)}",
            prompt,
        ),
    ]
    if main - other >= gates["frame_margin"]:
        verdict: Verdict = "pass"
    else:
        verdict = "fail" if other - main >= gates["frame_margin"] else "warn"
    advice = "more samples tell; if the other frame stays ahead, the task's frame or the image padding is wrong"
    found.append(Gate(task, "main box frame ahead of the other", verdict, f"{main:.1%} against {other:.1%}", advice))
    return found


def check_window(task: str, samples: Sequence[Sample], window: Mapping[str, Any] | None) -> Gate:
    """The score against the range of published runs, given the check's sampling error.

    Args:
        task: lmms-eval task.
        samples: its per-sample lines.
        window: an entry of `windows` in `gates.yaml`; None if there is none.
    """
    what = "score as published"
    if window is None:
        return Gate(task, what, "warn", "no published range for this model and task", "compare by hand")
    benchmark = next(entry for entry in shipped_benchmarks().benchmarks.values() if entry.task == task)
    lines = _whole_units(samples, benchmark)
    strata = len({line.stratum for line in lines})
    if not lines or strata < window.get("strata", 1):
        seen = f"{strata} of {window['strata']} categories" if lines and "strata" in window else "no whole question"
        return Gate(task, what, "warn", f"{seen} in {len(samples)} samples", "take more samples, or the whole task")
    units = units_of(lines, benchmark)
    # Contributions add up to the score; times their number their mean is the score.
    values = (units.contributions * (benchmark.scale * units.ids.size)).tolist()
    low, high = interval(values)
    if math.isinf(low):
        return Gate(task, what, "warn", f"n = {len(lines)}, too few to tell", "take more samples")
    digits = benchmark.digits
    return Gate(
        task,
        f"{benchmark.metric} within {window['low']} to {window['high']} ({window['source']})",
        "pass" if low <= window["high"] and high >= window["low"] else "fail",
        f"{mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}], n = {len(lines)}",
        "low grounding: image padding; low TextVQA: image path or prompt; near 58 on TextVQA without OCR: OCR tokens "
        "leaked in; low elsewhere: the prompt, or answers longer than the task reads",
    )


def _whole_units(samples: Sequence[Sample], benchmark: Benchmark) -> list[SampleLine]:
    """The lines of which the score is made, without images and questions that the check has only a part of.

    A part scores too high: an MME image counts by both its questions, an MMBench question by every order of its
    options.
    """
    metrics = (benchmark.metric, "pope_yes_ratio")
    lines = [sample_line(benchmark.task, sample, metrics) for sample in samples if benchmark.metric in sample]
    if benchmark.reduction == "mme":
        wanted = [2] * len(lines)
    elif benchmark.reduction == "circular":
        wanted = [_orders(sample[benchmark.metric]) for sample in samples]
    else:
        return lines
    found = Counter((line.stratum, line.group) for line in lines)
    return [line for line, parts in zip(lines, wanted, strict=True) if found[line.stratum, line.group] == parts]


def _orders(row: Mapping[str, Any]) -> int:
    """In how many orders a circular question is asked: as many as it has options."""
    return int(row["orders"]) if "orders" in row else sum(str(row.get(letter)) not in _NO_OPTION for letter in "ABCD")


def check_samples(family: str, samples: Mapping[str, Sequence[Sample]], published: bool = True) -> list[Gate]:
    """All gates of a check.

    Args:
        family: of the checkpoint, a key of `windows`; another one has no ranges.
        samples: per-sample lines by task.
        published: whether the checkpoint is one of `checkpoints` in `gates.yaml`, for which the ranges hold.
    """
    gates = expectations()
    windows = gates["windows"].get(family, {}) if published else {}
    found: list[Gate] = []
    for task, lines in samples.items():
        empty, most = mean(not str(line["filtered_resps"]).strip() for line in lines), gates["empty_max"]
        verdict: Verdict = "pass" if empty <= most else "fail"
        what = f"empty answers at most {most:.0%}"
        found.append(Gate(task, what, verdict, f"{empty:.1%}", "check dtype and the end token"))
        failed = sum(has_failed(line) for line in lines)
        verdict = "fail" if failed else "pass"
        advice = "the model's numbers are not finite: check its weights, and dtype (float16 may overflow)"
        found.append(Gate(task, "no answer failed", verdict, f"{failed} of {len(lines)}", advice))
        if lines and "acc@0.5_alt" in lines[0]:
            found += check_grounding(task, lines, gates["grounding"])
        found.append(check_window(task, lines, windows.get(task)))
    return found
