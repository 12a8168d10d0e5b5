"""From run records to comparable entries: who may stand in which table, and what may not be compared.

An `Entry` is one configuration in one setting with, for each task, the one run the task's score is taken from.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swiftvlm_eval.results.record import RunRecord, Status, TaskResult
from swiftvlm_eval.results.store import Problem, StoredRun

VANILLA = "vanilla"

# Fields two runs must share for their scores to stand in one table.
SETTING_KEYS = ("pretrained", "revision", "dtype", "image_mode", "system_prompt", "gen_kwargs", "limit", "offset")
# Which of two runs of one configuration counts, whatever their age: the one with more of its documents checked.
_STATUS_ORDER: tuple[Status, ...] = ("partial", "unverified", "limited", "complete")
# Fields that do not make a different row of the unpruned model.
_IRRELEVANT_FOR_VANILLA = ("budget", "options", "seed")


@dataclass(frozen=True)
class Entry:
    """One configuration.

    Attributes:
        key: Canonical JSON of the configuration without the setting.
        setting: Canonical JSON of the setting (`SETTING_KEYS`, and the model class where no checkpoint is named).
        tasks: For each lmms-eval task the run that scored it.
    """

    key: str
    setting: str
    tasks: Mapping[str, StoredRun]

    @property
    def record(self) -> RunRecord:
        """The record that stands for the configuration: that of the first task."""
        return self.tasks[min(self.tasks)].record

    @property
    def is_vanilla(self) -> bool:
        """Whether this is the unpruned model."""
        return self.record.method.name == VANILLA

    @property
    def runs(self) -> tuple[StoredRun, ...]:
        """The distinct runs, by file name."""
        unique = {run.path: run for run in self.tasks.values()}
        return tuple(unique[path] for path in sorted(unique, key=lambda path: (path.name, path.as_posix())))

    def task(self, name: str) -> TaskResult | None:
        """Returns the result of a task, None if the configuration was not run on it."""
        run = self.tasks.get(name)
        return None if run is None else run.record.tasks[name]


def admit(runs: Iterable[StoredRun], include_limited: bool) -> tuple[list[StoredRun], list[Problem]]:
    """Splits runs into those that may enter a table and those that may not, with the reason.

    Args:
        runs: All runs that could be read.
        include_limited: Also admit limited and partial runs; the tables label them.
    """
    admitted: list[StoredRun] = []
    problems: list[Problem] = []
    for run in runs:
        record = run.record
        if record.status in ("complete", "unverified") or include_limited:
            admitted.append(run)
        else:
            problems.append(
                Problem(run.path.name, f"{record.status} run left out: {'; '.join(record.status_reasons)}")
            )
    return admitted, problems


def group_entries(runs: Iterable[StoredRun]) -> tuple[list[Entry], list[Problem]]:
    """Groups runs into configurations.

    Of several runs of one configuration on one task a complete one counts, and of these the latest.

    Args:
        runs: Admitted runs.

    Returns:
        The configurations, sorted by setting and key, and one problem for each run that gives way to another.
    """
    collected: dict[tuple[str, str], dict[str, list[StoredRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for task in run.record.tasks:
            collected[_keys(run.record)][task].append(run)
    entries: list[Entry] = []
    problems: set[Problem] = set()
    for (setting, key), tasks in sorted(collected.items()):
        chosen: dict[str, StoredRun] = {}
        for task, candidates in sorted(tasks.items()):
            candidates.sort(key=lambda run: (_STATUS_ORDER.index(run.record.status), *_age(run)))
            chosen[task] = best = candidates[-1]
            for other in candidates[:-1]:
                kind = "later" if _age(best) > _age(other) else best.record.status
                reason = f"{task}: the same configuration was run again; the {kind} {best.path.name} counts"
                problems.add(Problem(other.path.name, reason))
        entries.append(Entry(key=key, setting=setting, tasks=chosen))
    return entries, sorted(problems, key=lambda problem: (problem.file, problem.reason))


def _age(run: StoredRun) -> tuple[str, str, str]:
    return run.record.origin.created or "", run.path.name, run.path.as_posix()


def _keys(record: RunRecord) -> tuple[str, str]:
    configuration = dict(record.configuration)
    setting = {name: configuration.pop(name) for name in SETTING_KEYS}
    if record.model.pretrained is None:
        # Without a checkpoint's name the model class is all that tells two models apart.
        setting["lmms_eval_model"] = record.model.lmms_eval_model
    if record.method.name == VANILLA:
        for name in _IRRELEVANT_FOR_VANILLA:
            configuration.pop(name)
    return json.dumps(setting, sort_keys=True), json.dumps(configuration, sort_keys=True)


def comparable(entries: Sequence[Entry], task: str) -> tuple[list[Entry], list[Problem]]:
    """Keeps the entries whose run of `task` asked the same questions.

    The unpruned model decides what the questions are; without it the most frequent set does.

    Returns:
        Entries with a score of the task that are comparable, and one problem for each that is not.
    """
    having = [entry for entry in entries if task in entry.tasks]
    reference = next((entry for entry in having if entry.is_vanilla), None)
    wanted = _questions(reference, task) if reference else _most_common([_questions(entry, task) for entry in having])
    kept: list[Entry] = []
    problems: list[Problem] = []
    for entry in having:
        differing = [
            f"{name} {have!r} instead of {want!r}"
            for (name, have), (_, want) in zip(_questions(entry, task), wanted, strict=True)
            if have is not None and want is not None and have != want
        ]
        if differing:
            against = reference.tasks[task].path.name if reference else "the other runs"
            reason = f"{task}: not comparable with {against}: {', '.join(differing)}"
            problems.append(Problem(entry.tasks[task].path.name, reason))
        else:
            kept.append(entry)
    return kept, problems


Questions = tuple[tuple[str, str | None], ...]


def _questions(entry: Entry, task: str) -> Questions:
    result = entry.tasks[task].record.tasks[task]
    return (
        ("documents scored", str(result.expected)),
        ("task version", json.dumps(result.version)),
        ("prompts", _short(result.prompts_sha256)),
        ("targets", _short(result.documents_sha256)),
    )


def _short(digest: str | None) -> str | None:
    return None if digest is None else digest[:12]


def _most_common(questions: Sequence[Questions]) -> Questions:
    counts = Counter(questions)
    return min(counts, key=lambda item: (-counts[item], str(item)))
