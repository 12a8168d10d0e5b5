"""Builds a run record from what one lmms-eval run wrote."""

import hashlib
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from swiftvlm_eval.results.bounds import one_line
from swiftvlm_eval.results.execution import ExecutionSum, TimingSum
from swiftvlm_eval.results.lmms_output import (
    Fingerprint,
    hub_dataset,
    pruning_report,
    raw_samples,
    read_results,
    sample_line,
    samples_path,
)
from swiftvlm_eval.results.record import (
    MethodDescription,
    MetricScore,
    ModelDescription,
    ModelShape,
    Origin,
    RunRecord,
    Settings,
    Software,
    Status,
    TaskResult,
)
from swiftvlm_eval.results.samples import SampleLine
from swiftvlm_eval.runs.provenance import checkpoint_name, public_arguments
from swiftvlm_eval.runs.report import RunDescription

# lmms-eval names of our model class, `<method>_llava` and `<method>_llava_next`; video_llava is lmms-eval's own.
OUR_MODELS = re.compile(r"(?!video_)\w+_llava(?:_next)?")
# Model arguments that are recorded elsewhere, or that make no other configuration of a described run either.
_NO_OPTIONS = {"pretrained", "revision", "device", "device_map", "batch_size", "max_batch_size", "look_ahead"}


def import_run(results_json: Path) -> tuple[RunRecord, list[SampleLine]]:
    """Reads one lmms-eval run (`--output_path`, best with `--log_samples`) as a record and its per-sample lines.

    Args:
        results_json: `<stamp>_results.json`; the per-sample files are looked for beside it.

    Returns:
        The record (without `samples_file`, which is set when it is written) and the lines sorted by task and document.

    Raises:
        ValueError: The file is not an lmms-eval results file, holds no task, a per-sample file is broken, or the
            run describes itself differently in different tasks. The message names the file.
    """
    results = read_results(results_json)
    try:
        return _imported(results, results_json)
    # Output of another program or version: any field may have another type than the one relied on.
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{results_json.name} is not shaped like output of lmms-eval 0.7.3 ({reason})") from error


def _imported(results: Mapping[str, Any], results_json: Path) -> tuple[RunRecord, list[SampleLine]]:
    if not results["n-samples"]:
        raise ValueError(f"{results_json.name} holds no task")
    runs: list[RunDescription] = []
    tasks: dict[str, TaskResult] = {}
    samples: list[SampleLine] = []
    for task in sorted(results["n-samples"]):
        tasks[task], lines, described = _import_task(results, results_json, task)
        samples.extend(lines)
        runs.extend(described)
    run = _agreeing(runs, results_json.name)
    try:
        return _record(results, results_json, run, tasks), samples
    except ValueError as error:
        raise ValueError(f"{results_json.name} does not make a valid record: {error}") from error


def _record(
    results: Mapping[str, Any], path: Path, described: RunDescription | None, tasks: dict[str, TaskResult]
) -> RunRecord:
    config = results["config"]
    run = described or RunDescription()
    settings = _settings(config, run)
    silent = described is None and OUR_MODELS.fullmatch(str(config.get("model"))) is not None
    status, reasons = _status(settings, tasks, silent=silent)
    return RunRecord(
        status=status,
        status_reasons=tuple(reasons),
        model=_model(config, run),
        method=MethodDescription(
            name=run.method,
            options=_options(config) if described is None else run.options or {},
            budget=run.budget,
            schedule=run.schedule,
            source_sha256=run.source_sha256,
            caveat=run.caveat,
        ),
        settings=settings,
        software=Software(
            versions=run.versions or {},
            commit=run.commit,
            lmms_eval_version=_text_or_none(results.get("lmms_eval_version")),
        ),
        origin=Origin(
            results_file=path.name,
            results_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            created=_utc(results.get("date"), config),
        ),
        tasks=tasks,
        wall_time_s=_number(results.get("total_evaluation_time_seconds")),
        extra=dict(sorted((run.model_extra or {}).items())),
    )


def _import_task(
    results: Mapping[str, Any], path: Path, task: str
) -> tuple[TaskResult, list[SampleLine], list[RunDescription]]:
    expected, available = (_count(results, path, task, key) for key in ("effective", "original"))
    reported = _reported_metrics(results["results"].get(task, {}))
    lines: list[SampleLine] = []
    runs: list[RunDescription] = []
    prompts, documents = Fingerprint(), Fingerprint()
    execution, timing = ExecutionSum(), TimingSum()
    dataset: Any = None
    halved: int | None = None
    file = samples_path(path, task)
    if file.exists():
        # several processes write in another order, and sums of floats depend on it
        for sample in sorted(raw_samples(file), key=lambda sample: int(sample["doc_id"])):
            try:
                report = pruning_report(sample)
                line = sample_line(task, sample, reported)
                execution.add(report)
                timing.add(report)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file.name}, document {sample['doc_id']}: {one_line(error)}") from error
            lines.append(line)
            dataset = sample.get("split") if dataset is None else dataset
            prompts.add(line.doc_id, sample.get("input"))
            documents.add(line.doc_id, sample.get("target"))
            if report.halved_batches is not None:
                halved = (halved or 0) + report.halved_batches
            if report.run is not None:
                runs.append(report.run)
    logged = file.exists()
    directions = results.get("higher_is_better", {}).get(task, {})
    result = TaskResult(
        version=results.get("versions", {}).get(task),
        dataset=hub_dataset(results["configs"].get(task)) if dataset is None else dataset,
        expected=expected,
        available=available,
        answered=len(lines) if logged else None,
        failed=_failed(lines, expected, reported) if logged else None,
        prompts_sha256=prompts.hexdigest() if logged else None,
        documents_sha256=documents.hexdigest() if logged else None,
        clustered=bool(lines) and all(line.cluster_id is not None for line in lines),
        metrics={
            name: _metric(name, value, stderr, lines if logged else None, directions.get(name.split(",")[0]))
            for name, (value, stderr) in reported.items()
        },
        execution=execution.result(runs[0].planned_mean if runs else None),
        timing=timing.result(),
        halved_batches=halved,
    )
    return result, lines, runs


def _count(results: Mapping[str, Any], path: Path, task: str, key: str) -> int:
    """Returns how many documents of a task lmms-eval counted.

    Raises:
        ValueError: It says no number; the message names the file, the field and the value.
    """
    counts = results["n-samples"][task]
    field = f"{path.name}: n-samples of {task}"
    if not isinstance(counts, Mapping):
        raise ValueError(f"{field} is {counts!r}; allowed is an object with 'original' and 'effective'")
    count = counts.get(key)
    if not isinstance(count, int):
        found = f"is {count!r}" if key in counts else "is missing"
        raise ValueError(f"{field}: {key!r} {found}; allowed is a whole number")
    return count


def _reported_metrics(entry: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    """Returns {metric: (value, standard error)}; a filter other than `none` stays part of the metric's name."""
    metrics: dict[str, tuple[float | None, float | None]] = {}
    for key, value in entry.items():
        name, comma, filter_name = key.partition(",")
        if not comma or "_stderr" in name or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        stderr = _number(entry.get(f"{name}_stderr,{filter_name}"))
        metrics[name if filter_name == "none" else key] = (_number(value), stderr)
    return metrics


def _metric(
    name: str,
    value: float | None,
    stderr: float | None,
    lines: Sequence[SampleLine] | None,
    higher_is_better: bool | None,
) -> MetricScore:
    scores = None if lines is None else [line.scores[name] for line in lines if name in line.scores]
    # lmms-eval has no standard error for metrics with an aggregation of their own; where that is the plain mean of
    # the per-sample scores (POPE accuracy) the usual formula applies.
    if stderr is None and value is not None and scores and len(scores) > 1:
        if math.isclose(statistics.fmean(scores), value, rel_tol=1e-9, abs_tol=1e-9):
            stderr = statistics.stdev(scores) / math.sqrt(len(scores))
    return MetricScore(
        value=value,
        stderr=stderr,
        n=None if scores is None else len(scores),
        higher_is_better=higher_is_better if isinstance(higher_is_better, bool) else None,
    )


def _failed(lines: Sequence[SampleLine], expected: int, metrics: Mapping[str, object]) -> int:
    """Counts documents without a line, with a reported failure, or without any finite score."""
    useless = sum(1 for line in lines if line.failed or (metrics and not line.scores))
    return max(expected - len(lines), 0) + useless


def _status(settings: Settings, tasks: Mapping[str, TaskResult], *, silent: bool) -> tuple[Status, list[str]]:
    """Returns the status and its reasons; `silent` is a run of our model class that does not describe itself."""
    limited, broken, unlogged = [], [], []
    if settings.limit is not None or settings.offset:
        limited.append(f"limit {_plain(settings.limit)}, offset {settings.offset}")
    for name, task in tasks.items():
        if task.answered is None:
            unlogged.append(f"{name}: no per-sample file (--log_samples), so no method, settings or times")
        elif task.failed or task.answered != task.expected:
            broken.append(f"{name}: {task.answered} of {task.expected} documents answered, {task.failed} failed")
        if not task.metrics:
            broken.append(f"{name}: no metric")
    if silent and not unlogged:
        unlogged.append("the run describes neither method nor execution (all answers from a response cache?)")
    status: Status = "partial" if broken else "limited" if limited else "unverified" if unlogged else "complete"
    return status, [*limited, *broken, *unlogged]


def _plain(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:g}"


def _agreeing(runs: Sequence[RunDescription], file_name: str) -> RunDescription | None:
    """Returns the run description, None without one; all tasks and ranks must give the same one."""
    if not runs:
        return None
    first = runs[0]
    for other in runs[1:]:
        if differing := first.differences(other):
            raise ValueError(f"{file_name}: the run describes itself differently in {', '.join(differing)}")
    return first


def _model(config: Mapping[str, Any], run: RunDescription) -> ModelDescription:
    arguments = _model_arguments(config.get("model_args"))
    shape = run.shape
    pretrained = run.pretrained or arguments.get("pretrained")
    return ModelDescription(
        pretrained=checkpoint_name(str(pretrained)) if pretrained else None,
        revision=run.revision or arguments.get("revision"),
        family=run.family,
        lmms_eval_model=str(config.get("model")),
        shape=ModelShape(**{key: shape.get(key) for key in ModelShape.model_fields}) if shape else None,
    )


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a run apart that does not describe itself: its model arguments, fit for publication."""
    arguments = _model_arguments(config.get("model_args"))
    given = {key: value for key, value in sorted(arguments.items()) if key not in _NO_OPTIONS}
    return {"model_args": public_arguments(given)} if given else {}


def _model_arguments(text: object) -> dict[str, str]:
    """Splits lmms-eval's `--model_args`; a part without `=` belongs to the value before it (`layers=[3,9]`)."""
    if isinstance(text, Mapping):
        return {str(key): str(value) for key, value in text.items()}
    arguments: dict[str, str] = {}
    key = ""
    for part in str(text or "").split(","):
        name, equals, value = part.partition("=")
        if equals:
            key = name.strip()
            arguments[key] = value
        elif part.strip():
            arguments[key or part] = f"{arguments[key]},{part}" if key else ""
    return arguments


def _settings(config: Mapping[str, Any], run: RunDescription) -> Settings:
    limit = config.get("limit")
    return Settings(
        dtype=run.dtype,
        device=run.device,
        attn_implementation=run.attn_implementation,
        batch_size=run.batch_size,
        batch_size_choice=run.batch_size_choice,
        image_mode=run.image_mode,
        system_prompt_sha256=run.system_prompt_sha256,
        seed=config.get("torch_seed") if run.seed is None else run.seed,
        world_size=run.world_size,
        limit=None if limit in (None, -1) else float(limit),
        offset=int(config.get("offset") or 0),
        gen_kwargs=config.get("gen_kwargs") or None,
    )


def _utc(stamp: object, config: Mapping[str, Any]) -> str | None:
    """Converts lmms-eval's local stamp (its default zone is Asia/Singapore) to ISO 8601 in UTC."""
    arguments = config.get("resolved_cli_args") or {}
    try:
        zone = ZoneInfo(str(arguments.get("timezone") or "Asia/Singapore"))
        moment = datetime.strptime(str(stamp), "%Y%m%d_%H%M%S").replace(tzinfo=zone)
    except (ValueError, ZoneInfoNotFoundError):
        return None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
