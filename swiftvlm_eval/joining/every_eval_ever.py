"""Run records in the schema of Every Eval Ever (arXiv 2606.14516), aggregate level, version 0.3.0 of the schema.

One file a record: `data/swiftvlm-eval/<developer>/<model>/<uuid>.json`; equal records give equal bytes. A pruned
model is not the model: the method and its budget stand in the name of the model and of every evaluation, not in
details alone. The instance level asks for question and reference of every sample, which records do not hold.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from swiftvlm_eval.joining.feed import moment
from swiftvlm_eval.leaderboard.compute.entries import VANILLA
from swiftvlm_eval.leaderboard.render.text import plain, shown_name
from swiftvlm_eval.results.benchmarks import Benchmark, BenchmarkTable
from swiftvlm_eval.results.record import RunRecord
from swiftvlm_eval.results.store import Problem, StoredRun, make_folder, write_atomically

SCHEMA = "0.3.0"
COLLECTION = "swiftvlm-eval"
Relationship = Literal["first_party", "third_party", "collaborative", "other"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*[A-Za-z0-9_-]/[A-Za-z0-9][\w.-]*[A-Za-z0-9_-]", re.ASCII)
_DEMO = "demo"


def export_records(
    runs: Iterable[StoredRun], out: Path, table: BenchmarkTable, *, organization: str, relationship: str
) -> tuple[list[Path], list[Problem]]:
    """Writes complete records; a file that is there with the same content stays.

    Args:
        runs: Records.
        out: Folder that gets `data/`.
        table: The benchmark columns; other tasks are not exported.
        organization: Who ran them.
        relationship: Of that organization to the model, one of `Relationship`.

    Returns:
        The files, sorted, and which records were left out and why.

    Raises:
        ValueError: An unknown relationship, no organization, or a file that is there with other content.
    """
    if relationship not in get_args(Relationship):
        raise ValueError(f"relationship={relationship!r}: allowed are {', '.join(get_args(Relationship))}")
    if not plain(organization):
        raise ValueError(f"organization={organization!r}: allowed is the name of who ran the records")
    files: dict[Path, bytes] = {}
    problems: list[Problem] = []
    for run in runs:
        try:
            place, content = exported(run.record, table, organization=plain(organization), relationship=relationship)
        except ValueError as error:
            problems.append(Problem(run.path.name, f"not exported: {error}"))
            continue
        files[out / place] = (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    for path, text in files.items():
        if path.exists() and path.read_bytes() != text:
            raise ValueError(f"{path} is already there with other content")
    for path, text in files.items():
        make_folder(path.parent)
        write_atomically(path, text)
    return sorted(files), problems


def exported(
    record: RunRecord, table: BenchmarkTable, *, organization: str, relationship: str
) -> tuple[str, dict[str, Any]]:
    """Returns the path of a record's file below the output folder, and its content.

    Args:
        record: A complete record of a checkpoint of the hub, or of the demo model.
        table: The benchmark columns.
        organization: Who ran it.
        relationship: One of `Relationship`.

    Raises:
        ValueError: The record is not complete, not dated, of a local checkpoint, or holds no known benchmark.
    """
    when = moment(record.origin.created)
    columns = table.of_tasks(set(record.tasks))
    if record.status != "complete":
        raise ValueError(f"status={record.status}; allowed is complete")
    if when is None:
        raise ValueError(f"origin.created={record.origin.created}; allowed is a time with its zone")
    model = "swiftvlm-eval/demo" if record.model.pretrained == _DEMO else record.model.pretrained or ""
    if not _HUB_ID.fullmatch(model) or "data" in model.split("/"):
        raise ValueError(f"model.pretrained={record.model.pretrained}; allowed is a checkpoint of the hub")
    results = [entry for column in columns if (entry := _result(record, column)) is not None]
    if not results:
        raise ValueError("tasks: none of the benchmark table has a score")
    epoch = str(int(datetime.fromisoformat(when).timestamp()))
    digest = hashlib.sha256(record.to_json().encode()).digest()
    content = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{COLLECTION}/{model}/{record.record_id}/{epoch}",
        "evaluation_timestamp": epoch,
        "retrieved_timestamp": epoch,
        "source_metadata": {
            "source_name": COLLECTION,
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": relationship,
            "additional_details": {"record_id": record.record_id, "results_sha256": record.origin.results_sha256},
        },
        "eval_library": {"name": "lmms_eval", "version": record.software.versions.get("lmms-eval", "unknown")},
        "model_info": _model(record, model),
        "evaluation_results": results,
    }
    return f"data/{COLLECTION}/{model}/{uuid.UUID(bytes=digest[:16], version=4)}.json", content


def _variant(record: RunRecord) -> str:
    """What was done to the model, empty for the unpruned one."""
    method = record.method
    if method.name == VANILLA:
        return ""
    budget = "an unknown share" if method.budget is None else f"{100 * method.budget:.1f} %"
    return f"visual tokens reduced to {budget} by {shown_name(method.name or record.model.lmms_eval_model)}"


def _model(record: RunRecord, model: str) -> dict[str, Any]:
    variant = _variant(record)
    settings, method = record.settings, record.method
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights",
        "pruning_method": method.name or "none known",
        "pruning_options": json.dumps(method.options, sort_keys=True),
        "pruning_budget": str(method.budget),
        "revision": str(record.model.revision),
        "dtype": str(settings.dtype),
        "device": str(settings.device),
        "attention": str(settings.attn_implementation),
        "image_mode": str(settings.image_mode),
        "seed": str(settings.seed),
    }
    if method.source_sha256 is not None:
        details["pruning_source_sha256"] = method.source_sha256
    return {
        "name": f"{model} ({variant})" if variant else model,
        "id": model,
        "developer": model.split("/")[0],
        "inference_engine": {
            "name": "transformers",
            "version": record.software.versions.get("transformers", "unknown"),
        },
        "additional_details": {key: plain(value) for key, value in details.items()},
    }


def _result(record: RunRecord, column: Benchmark) -> dict[str, Any] | None:
    task = record.tasks[column.task]
    score = task.metrics.get(column.metric)
    if score is None or score.value is None:
        return None
    variant, execution = _variant(record), task.execution
    most = (2000 if column.reduction == "mme" else 100) / column.scale
    public = column.documents is not None
    details = {} if execution is None else {
        "mean_visual_tokens_per_layer": f"{execution.mean_visual_tokens:.10g}",
        "visual_tokens": f"{execution.visual_tokens:.10g}",
        "executed_share": f"{execution.executed_share:.10g}",
    }  # fmt: skip
    return {
        "evaluation_result_id": f"{column.key}/{column.metric}",
        "evaluation_name": f"{column.title} ({variant})" if variant else column.title,
        "source_data": {
            "dataset_name": column.title,
            "source_type": "hf_dataset" if public else "other",
            **({"samples_number": task.expected} if public else {}),
            "additional_details": {
                "task": column.task,
                "task_version": json.dumps(task.version),
                "dataset": plain(json.dumps(task.dataset, sort_keys=True)),
                "documents": str(task.expected),
            },
        },
        "metric_config": {
            "evaluation_description": column.literature,
            "metric_id": f"{column.task}.{column.metric}",
            "metric_name": column.metric,
            "metric_unit": "proportion" if column.scale == 100 else "points",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": most,
        },
        "score_details": {
            "score": score.value,
            "details": details,
            **_uncertainty(score.stderr, score.n),
        },
    }


def _uncertainty(stderr: float | None, count: int | None) -> dict[str, Any]:
    """The standard error that lmms-eval printed, which takes documents as independent."""
    if stderr is None:
        return {}
    return {
        "uncertainty": {
            "standard_error": {"value": stderr, "method": "analytic, documents taken as independent"},
            **({} if count is None else {"num_samples": count}),
        }
    }
