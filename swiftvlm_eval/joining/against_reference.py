"""What speaks against a submitted record beside the records that are there: questions, tests, vanilla, copies."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swiftvlm_eval.joining.findings import Findings, some
from swiftvlm_eval.joining.samples_file import answers_of
from swiftvlm_eval.leaderboard.compute.entries import VANILLA, group_entries
from swiftvlm_eval.results.benchmarks import BenchmarkTable
from swiftvlm_eval.results.record import RunRecord
from swiftvlm_eval.results.store import StoredRun


@dataclass(frozen=True)
class Placed:
    """A record with its place in the boards.

    Attributes:
        run: The record and its file.
        setting: Names the board.
        key: Names the configuration within the board.
    """

    run: StoredRun
    setting: str
    key: str

    @property
    def record(self) -> RunRecord:
        """The record."""
        return self.run.record

    @property
    def name(self) -> str:
        """Its file name."""
        return self.run.path.name

    @property
    def is_vanilla(self) -> bool:
        """Whether this is the unpruned model."""
        return self.record.method.name == VANILLA


def placed(runs: Iterable[StoredRun]) -> list[Placed]:
    """Returns runs with their places; runs without a task have none."""
    entries = ((run, group_entries([run])[0]) for run in runs)
    return [Placed(run, found[0].setting, found[0].key) for run, found in entries if found]


def check_beside(
    submitted: Sequence[Placed],
    reference: Sequence[Placed],
    answers: Mapping[Path, str],
    table: BenchmarkTable,
    findings: Findings,
) -> None:
    """Compares submitted records with those that are there, and with one another.

    Args:
        submitted: Records that pass by themselves.
        reference: Records that are there.
        answers: Path of a submitted record -> `answers_of` its samples.
        table: The benchmark columns.
        findings: Gets refusals and notes.
    """
    seen: dict[tuple[str, str, str], Placed] = {}
    for each in submitted:
        rivals = [other for other in reference if other.setting == each.setting]
        identity = (each.setting, each.key, json.dumps(sorted(each.record.tasks)))
        if identity in seen:
            findings.refuse(
                each.name, "configuration", f"that of {seen[identity].name}", "each configuration and task set once"
            )
        seen.setdefault(identity, each)
        _check_unpublished(each, reference, findings)
        _check_vanilla(each, submitted, rivals, findings)
        _check_whole(each, submitted, rivals, table, findings)
        _check_copies(each, reference, answers, findings)
        earlier = [other for other in submitted[: submitted.index(each)] if other.setting == each.setting]
        for other in earlier:
            if answers[other.run.path] == answers[each.run.path] and other.key != each.key:
                findings.refuse(each.name, "samples", f"the answers of {other.name}", "answers of its own")


def _check_unpublished(each: Placed, reference: Sequence[Placed], findings: Findings) -> None:
    path = each.run.path
    for other in reference:
        there = other.run.path
        if there.name == path.name and there.resolve().parent.name == path.resolve().parent.name:
            findings.refuse(
                each.name, "file", "already published", "a new file; records are never edited, a new run gets a folder"
            )


def _check_vanilla(each: Placed, submitted: Sequence[Placed], rivals: Sequence[Placed], findings: Findings) -> None:
    """There must be an unpruned run of the same model and setting that answered the same questions."""
    own = [other for other in submitted if other.setting == each.setting]
    for task, result in each.record.tasks.items():
        there = [other for other in rivals if other.is_vanilla and task in other.record.tasks]
        brought = [other for other in own if other.is_vanilla and task in other.record.tasks]
        if each.is_vanilla and there:
            findings.note(
                each.name,
                f"{task}: {there[0].name} is vanilla of this setting; where the new run is later, "
                "every percentage of the board changes",
            )
        if not there and not brought:
            findings.refuse(
                each.name,
                "vanilla",
                f"none on {task} with {each.setting}",
                "a vanilla record of the same model and setting, here or among those that are there",
            )
            continue
        base = (there or brought)[0]
        wanted = base.record.tasks[task]
        for field in ("version", "prompts_sha256", "documents_sha256", "expected", "dataset"):
            have, want = getattr(result, field), getattr(wanted, field)
            if want is not None and have != want:
                findings.refuse(
                    each.name, f"tasks.{task}.{field}", json.dumps(have), f"{json.dumps(want)} as of {base.name}"
                )
        if vanished := sorted(wanted.metrics.keys() - result.metrics.keys()):
            findings.refuse(
                each.name, f"tasks.{task}.metrics", some(sorted(result.metrics)), f"{some(vanished)} as in {base.name}"
            )


def _check_whole(
    each: Placed,
    submitted: Sequence[Placed],
    rivals: Sequence[Placed],
    table: BenchmarkTable,
    findings: Findings,
) -> None:
    """A configuration must have all tests of the rows beside it; where there are none, a whole set of benchmarks."""
    same = [other for other in (*submitted, *rivals) if (other.setting, other.key) == (each.setting, each.key)]
    have = {task for other in same for task in other.record.tasks}
    beside = [other for other in rivals if other.is_vanilla] or list(rivals)
    if beside:
        wanted = {task for other in beside for task in other.record.tasks}
        source = f"those of {beside[0].name}"
    else:
        sets = {name: {table.benchmarks[key].task for key in keys} for name, keys in table.sets.items()}
        if not sets or any(tasks <= have for tasks in sets.values()):
            return
        best = max(sorted(sets), key=lambda name: (len(have & sets[name]), -len(sets[name])))
        wanted, source = sets[best], f"the set {best}"
    if missing := sorted(wanted - have):
        findings.refuse(each.name, "tasks", some(sorted(have), 12), f"all of {source}; missing: {some(missing, 12)}")


def _check_copies(each: Placed, reference: Sequence[Placed], answers: Mapping[Path, str], findings: Findings) -> None:
    """The answers of a record that is there make no new row; of the same configuration they repeat it."""
    for other in reference:
        if other.record.origin.results_sha256 == each.record.origin.results_sha256:
            findings.refuse(
                each.name, "origin.results_sha256", each.record.origin.results_sha256, f"a run other than {other.name}"
            )
        if not _same_scores(each.record, other.record):
            continue
        try:
            copied = answers_of(other.run.samples()) == answers[each.run.path]
        except ValueError as error:
            findings.note(other.name, f"not compared: {error}")
            continue
        if not copied:
            continue
        if (other.setting, other.key) == (each.setting, each.key):
            findings.note(each.name, f"repeats {other.name}: every answer is the same")
        elif other.setting == each.setting:
            findings.refuse(each.name, "samples", f"the answers of {other.name}", "answers of its own")
        else:
            findings.note(each.name, f"has every answer of {other.name}, which is of another setting")


def _same_scores(first: RunRecord, second: RunRecord) -> bool:
    if first.tasks.keys() != second.tasks.keys():
        return False
    return all(
        first.tasks[task].metrics.get(metric) is not None and first.tasks[task].metrics[metric].value == score.value
        for task, result in second.tasks.items()
        for metric, score in result.metrics.items()
    )
