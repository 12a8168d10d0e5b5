"""What speaks against a submitted record by itself: its schema, its samples, its method, and what it must not hold."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from swiftvlm_eval.joining.findings import Findings, some
from swiftvlm_eval.joining.private import machine_path, named_secrets, secret_kind, texts_in
from swiftvlm_eval.leaderboard.compute.entries import VANILLA
from swiftvlm_eval.leaderboard.compute.units import reduce_samples
from swiftvlm_eval.results.benchmarks import Benchmark, BenchmarkTable
from swiftvlm_eval.results.lmms_output import RESULTS_NAME
from swiftvlm_eval.results.record import RunRecord, TaskResult
from swiftvlm_eval.results.samples import SampleLine
from swiftvlm_eval.results.store import RECORD_ENDING, read_record

OptionCheck = Callable[[str, Mapping[str, Any]], str]
_ALMOST = 1e-6
# A clock may be wrong by this much; a record from the future would count before every later one.
_CLOCKS = timedelta(days=1)


def read_submitted(path: Path, findings: Findings) -> RunRecord | None:
    """Reads a record file; None if it is none.

    Args:
        path: A regular file of bounded size.
        findings: Gets the refusals.
    """
    name = path.name
    try:
        record = read_record(path)
        repeated = _repeated_keys(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        findings.refuse(name, "record", str(error).removeprefix(f"{name} "), "a run record as the sweep writes it")
        return None
    if repeated:
        findings.refuse(name, repeated[0], "given twice", "every field once")
    if name != f"{record.stem}{RECORD_ENDING}":
        findings.refuse(name, "name", name, f"the name that its content asks for, {record.stem}{RECORD_ENDING}")
    return record


def _repeated_keys(text: str) -> list[str]:
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                repeated.append(key)
            seen.add(key)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    return repeated


def check_statement(name: str, record: RunRecord, now: datetime, findings: Findings) -> None:
    """What the record says of the run as a whole: complete, dated, nothing private.

    Args:
        name: Its file name.
        record: The record.
        now: The present time, with a zone.
        findings: Gets the refusals.
    """
    if record.status != "complete":
        findings.refuse(name, "status", f"{record.status} ({some(record.status_reasons)})", "complete")
    if not record.tasks:
        findings.refuse(name, "tasks", "none", "at least one")
    for field, value, allowed in (("limit", record.settings.limit, None), ("offset", record.settings.offset, 0)):
        if value != allowed:
            findings.refuse(name, f"settings.{field}", value, f"{allowed}: all documents")
    if not record.model.pretrained:
        findings.refuse(name, "model.pretrained", record.model.pretrained, "the checkpoint's name")
    if not RESULTS_NAME.fullmatch(record.origin.results_file):
        findings.refuse(name, "origin.results_file", record.origin.results_file, "<stamp>_results.json of lmms-eval")
    _check_date(name, record.origin.created, now, findings)
    content = record.model_dump(mode="json")
    for place, text in texts_in(content):
        if kind := secret_kind(text):
            findings.refuse(name, place, kind, "nothing secret")
        elif found := machine_path(text):
            findings.refuse(name, place, found, "no folders of a machine")
    for place in named_secrets(content):
        findings.refuse(name, place, "something hidden here", "nothing secret, or the word hidden")
    if record.software.commit is None or "+" in record.software.commit:
        findings.note(name, "made with code that differs from every commit" if record.software.commit else "no commit")


def _check_date(name: str, created: str | None, now: datetime, findings: Findings) -> None:
    try:
        made = datetime.fromisoformat(created or "")
        late = made > now + _CLOCKS
    except (ValueError, TypeError):
        findings.refuse(name, "origin.created", created, "a time with its zone, as 2026-01-31T12:00:00Z")
        return
    if late:
        findings.refuse(name, "origin.created", created, f"a time that has been, now is {now:%Y-%m-%dT%H:%M}")


def check_method(
    name: str,
    record: RunRecord,
    registered: Collection[str],
    attached: Mapping[str, tuple[Path, ...]],
    findings: Findings,
    wrong_options: OptionCheck | None = None,
) -> tuple[Path, ...]:
    """Whether the method is one that everybody can run: registered, or with its source attached.

    Args:
        name: The record's file name.
        record: The record.
        registered: Names of all registered methods.
        attached: Hash -> source files, as returned by `source_hashes`; the files are not run.
        findings: Gets the refusals.
        wrong_options: Says what is wrong with the options of one registered method; empty if nothing is.

    Returns:
        The source files that the record stands on.
    """
    method = record.method
    if method.name is None:
        findings.refuse(name, "method.name", None, "a method run through this package")
        return ()
    unknown = [part for part in method.name.split("+") if part not in registered]
    if method.source_sha256 is None:
        if unknown:
            findings.refuse(
                name, "method.name", method.name, "a registered method, or one with source_sha256 and that file"
            )
        elif method.name in registered and wrong_options is not None:
            if reason := wrong_options(method.name, method.options):
                findings.refuse(
                    name, "method.options", json.dumps(method.options), f"what the method takes ({reason})"
                )
        return ()
    if not unknown:
        findings.refuse(
            name, "method.source_sha256", method.source_sha256, f"none: {method.name} is the name of a registered one"
        )
        return ()
    if method.source_sha256 not in attached:
        findings.refuse(
            name, "method.source_sha256", method.source_sha256, "the SHA-256 of a .py file beside the record"
        )
    return attached.get(method.source_sha256, ())


def check_tasks(
    name: str, record: RunRecord, lines: Sequence[SampleLine], table: BenchmarkTable, findings: Findings
) -> None:
    """Whether every task is whole, and whether the samples give the scores and token counts that the record states.

    Args:
        name: The record's file name.
        record: The record.
        lines: Its per-sample lines.
        table: The benchmark columns.
        findings: Gets the refusals.
    """
    by_task: dict[str, list[SampleLine]] = {task: [] for task in record.tasks}
    for line in lines:
        by_task.setdefault(line.task, []).append(line)
        for field in ("prediction", "cluster_id", "group", "stratum"):
            text = getattr(line, field) or ""
            place = f"samples, {line.task} doc_id {line.doc_id}, {field}"
            if kind := secret_kind(text):
                findings.refuse(name, place, kind, "nothing secret")
            elif field != "prediction" and (path := machine_path(text)):
                findings.refuse(name, place, path, "no folders of a machine")
    for task in sorted(by_task):
        columns = table.of_tasks({task})
        result = record.tasks.get(task)
        if result is None:
            findings.refuse(name, "samples", f"lines of {task}", f"lines of {some(sorted(record.tasks))}")
        elif not columns:
            known = some(sorted({each.task for each in table.benchmarks.values()}), 40)
            findings.refuse(name, "tasks", task, f"a task of the benchmark table: {known}")
        else:
            _check_counts(name, task, result, by_task[task], columns, findings)
            for column in columns:
                _check_score(name, result, by_task[task], column, findings)
            _check_execution(name, task, result, by_task[task], findings)
            if record.method.name == VANILLA and result.execution and result.execution.executed_share < 1 - _ALMOST:
                share = result.execution.executed_share
                findings.refuse(name, f"tasks.{task}.execution.executed_share", share, "1: vanilla prunes nothing")


def _check_counts(
    name: str,
    task: str,
    result: TaskResult,
    lines: Sequence[SampleLine],
    columns: Sequence[Benchmark],
    findings: Findings,
) -> None:
    place = f"tasks.{task}"
    for column in columns:
        if column.documents is not None and result.expected != column.documents:
            findings.refuse(name, f"{place}.expected", result.expected, f"{column.documents}, all of {column.title}")
    if result.expected == 0:
        findings.refuse(name, f"{place}.expected", 0, "at least one document")
    for field, value, allowed in (
        ("available", result.available, result.expected),
        ("answered", result.answered, result.expected),
        ("failed", result.failed, 0),
    ):
        if value != allowed:
            findings.refuse(name, f"{place}.{field}", value, f"{allowed}")
    found = [line.doc_id for line in lines]
    # not set(range(expected)): a record may claim a billion documents
    if len(found) != result.expected or sorted(found) != list(range(len(found))):
        shown = f"{len(found)} lines, {len(set(found))} documents, the last {max(found, default=None)}"
        findings.refuse(name, f"samples, {task}", shown, f"documents 0 to {result.expected - 1}, each once")
    if failed := [line.doc_id for line in lines if line.failed]:
        findings.refuse(name, f"samples, {task}", f"{len(failed)} failed", "answers to all documents")
    for field in ("prompts_sha256", "documents_sha256"):
        if getattr(result, field) is None:
            findings.refuse(name, f"{place}.{field}", None, "a hash, as the import of logged samples makes it")
    for metric, score in result.metrics.items():
        scored = sum(metric in line.scores for line in lines)
        if score.n is not None and score.n != scored:
            findings.refuse(name, f"{place}.metrics.{metric}.n", score.n, f"the {scored} lines that have it")


def _check_score(
    name: str, result: TaskResult, lines: Sequence[SampleLine], column: Benchmark, findings: Findings
) -> None:
    place = f"tasks.{column.task}.metrics.{column.metric}"
    score = result.metrics.get(column.metric)
    if score is None or score.value is None:
        findings.refuse(name, place, "missing", "a score")
        return
    most = (2000 if column.reduction == "mme" else 100) / column.scale
    if not 0 <= score.value <= most * (1 + _ALMOST):
        findings.refuse(name, f"{place}.value", score.value, f"0 to {most:g}")
    if column.reduction in ("mean", "subset_f1"):
        values = [line.scores.get(column.metric) for line in lines]
        if without := sum(value is None for value in values):
            findings.refuse(name, f"samples, {column.task}", f"{without} without {column.metric}", "it in every line")
        top = most if column.reduction == "mean" else 1
        beyond = [value for value in values if value is not None and not 0 <= value <= top]
        if beyond:
            findings.refuse(name, f"samples, {column.task}, {column.metric}", beyond[0], f"0 to {top:g}")
    try:
        reduce_samples(lines, column, score.value)
    except (ValueError, ArithmeticError) as error:
        findings.refuse(name, f"{place}.value", score.value, f"what the samples give ({error})")


def _check_execution(
    name: str, task: str, result: TaskResult, lines: Sequence[SampleLine], findings: Findings
) -> None:
    """Compares the executed token counts with what each sample says it kept."""
    place, execution = f"tasks.{task}.execution", result.execution
    told = [(line.visual_tokens, line.kept_visual_tokens) for line in lines]
    pairs = [(visual, kept) for visual, kept in told if visual and kept is not None]
    if execution is None or not pairs:
        findings.refuse(name, place, "missing", "what the prefill executed, as our model classes report it")
        return
    visual, kept = np.array(pairs, dtype=float).T
    for field, stated, counted in (
        ("samples", execution.samples, len(pairs)),
        ("visual_tokens", execution.visual_tokens, visual.mean()),
        ("mean_visual_tokens", execution.mean_visual_tokens, kept.mean()),
        ("executed_share", execution.executed_share, (kept / visual).mean()),
        ("rows_per_layer", float(np.mean(execution.rows_per_layer or [0])), kept.mean()),
    ):
        if not math.isclose(stated, counted, rel_tol=_ALMOST, abs_tol=_ALMOST):
            findings.refuse(name, f"{place}.{field}", stated, f"what the samples give, {counted:.6g}")
    if np.any(kept > visual * (1 + _ALMOST)):
        findings.refuse(name, f"samples, {task}", "more tokens kept than there are", "at most visual_tokens")
