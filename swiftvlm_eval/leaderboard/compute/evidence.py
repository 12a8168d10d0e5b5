"""Reads the per-sample files of a board's runs once each, and keeps only what the statistics need."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swiftvlm_eval.leaderboard.compute.entries import Entry
from swiftvlm_eval.leaderboard.compute.timing import Times, times_of
from swiftvlm_eval.leaderboard.compute.units import Units, reduce_samples
from swiftvlm_eval.results.benchmarks import Benchmark
from swiftvlm_eval.results.samples import SampleLine
from swiftvlm_eval.results.store import Problem, StoredRun


@dataclass(frozen=True)
class Evidence:
    """What the per-sample files say, by (entry key, benchmark key).

    Attributes:
        units: Contributions of the units, where they add up to the reported score.
        times: Times of the documents, empty where none were recorded.
    """

    units: Mapping[tuple[str, str], Units]
    times: Mapping[tuple[str, str], Times]


def gather(entries: Sequence[Entry], benchmarks: Sequence[Benchmark]) -> tuple[Evidence, list[Problem]]:
    """Reads every run of the entries once; one run's lines are in memory at a time.

    Args:
        entries: The configurations of one setting.
        benchmarks: The columns of their board.
    """
    units: dict[tuple[str, str], Units] = {}
    times: dict[tuple[str, str], Times] = {}
    problems: list[Problem] = []
    for entry in entries:
        for run in entry.runs:
            wanted = [each for each in benchmarks if entry.tasks.get(each.task) is run]
            lines, found = _lines(run)
            problems.extend(found)
            for benchmark in wanted:
                key = (entry.key, benchmark.key)
                times[key] = times_of(lines[benchmark.task])
                try:
                    reduced = _units(run, benchmark, lines[benchmark.task])
                except ValueError as error:
                    problems.append(Problem(run.path.name, f"no interval: {error}"))
                    continue
                if reduced is not None:
                    units[key] = reduced
    return Evidence(units, times), problems


def _lines(run: StoredRun) -> tuple[dict[str, list[SampleLine]], list[Problem]]:
    lines: dict[str, list[SampleLine]] = defaultdict(list)
    try:
        for line in run.samples():
            lines[line.task].append(line)
    except ValueError as error:
        return defaultdict(list), [Problem(run.path.name, f"no intervals: {error}")]
    return lines, []


def _units(run: StoredRun, benchmark: Benchmark, lines: Sequence[SampleLine]) -> Units | None:
    metric = run.record.tasks[benchmark.task].metrics.get(benchmark.metric)
    if not lines or metric is None or metric.value is None:
        return None
    return reduce_samples(lines, benchmark, metric.value)
