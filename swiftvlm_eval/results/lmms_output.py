"""Reads what one lmms-eval run wrote: `<stamp>_results.json` and the `<stamp>_samples_<task>.jsonl` beside it.

Facts of lmms-eval 0.7.3 this relies on: a score is stored under `results.<task>["<metric>,<filter>"]`; a key that a
task returns without declaring it as a metric appears there as an empty list; a per-sample score is a number or, for
tasks with an aggregation of their own, a dictionary; `token_counts` is null for answers from the response cache.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from swiftvlm_eval.results.files import require_regular
from swiftvlm_eval.results.mmbench import answer_letter
from swiftvlm_eval.results.samples import SampleLine
from swiftvlm_eval.runs.report import SampleReport, report_in

RESULTS_NAME = re.compile(r"(?P<stamp>\d{8}_\d{6})_results\.json")
# A data set of the hub, owner and name; a local builder (`json`) has no owner, a path of the machine another shape.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def read_results(path: Path) -> dict[str, Any]:
    """Reads a results file.

    Raises:
        ValueError: The file cannot be read or is not an lmms-eval results file; the message names it.
    """
    try:
        content = json.loads(require_regular(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise ValueError(f"{path.name} cannot be read as JSON: nested too deeply") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read as JSON: {error}") from error
    missing = [key for key in ("results", "configs", "n-samples", "config") if not _is_mapping(content, key)]
    if missing:
        raise ValueError(f"{path.name} is not an lmms-eval results file: no {', '.join(missing)}")
    return dict(content)


def _is_mapping(content: object, key: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(key), Mapping)


def hub_dataset(config: object) -> JsonValue:
    """Says what a task that is silent about its data had lmms-eval load; None unless that is a data set of the hub.

    Which commit was loaded is in no file of lmms-eval's.
    """
    if not isinstance(config, Mapping) or not _HUB_ID.fullmatch(str(config.get("dataset_path"))):
        return None
    options = config.get("dataset_kwargs")
    options = options if isinstance(options, Mapping) else {}
    if options.get("load_from_disk") or options.get("data_files"):
        return None
    revision = str(options.get("revision") or "main")
    parts = [f"{config['dataset_path']}@{revision}", config.get("dataset_name"), config.get("test_split")]
    return {
        "source": "/".join(str(part) for part in parts if part),
        "revision": revision,
        "pin": "pinned" if _COMMIT.fullmatch(revision) else "not pinned",
        "commit": None,
    }


def samples_path(results_path: Path, task: str) -> Path:
    """Returns where lmms-eval puts the per-sample lines of `task` beside a results file."""
    return results_path.with_name(f"{results_path.name.removesuffix('_results.json')}_samples_{task}.jsonl")


def raw_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the raw per-sample lines of one task, in file order.

    Raises:
        ValueError: A line is broken or a document occurs twice; the message names file and line.
    """
    seen: set[int] = set()
    with require_regular(path).open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                sample = json.loads(line.decode())
                doc_id = int(sample["doc_id"])
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, line {number}: not an lmms-eval sample ({error})") from error
            except RecursionError as error:
                raise ValueError(f"{path.name}, line {number}: nested too deeply") from error
            if doc_id in seen:
                raise ValueError(f"{path.name}, line {number}: document {doc_id} occurs twice")
            seen.add(doc_id)
            yield sample


def pruning_report(sample: Mapping[str, Any]) -> SampleReport:
    """Returns what our model class reported for a sample in its token counts, or an empty report.

    Raises:
        ValueError: The token counts are not shaped as lmms-eval writes them, or the report is not as ours are.
    """
    return report_in(next(iter(_token_counts(sample)), {}))


def has_failed(sample: Mapping[str, Any]) -> bool:
    """Returns whether our model class reported that an answer to the sample (a choice of it, too) means nothing.

    Raises:
        ValueError: The token counts are not shaped as lmms-eval writes them, or a report is not as ours are.
    """
    return any(report_in(counts).is_failure for counts in _token_counts(sample))


def _token_counts(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the counts of each answer to a sample: one, or one for each choice.

    Raises:
        ValueError: They have another shape.
    """
    counts = sample.get("token_counts")
    if counts is None:
        return []
    if not isinstance(counts, list) or not all(isinstance(each, dict | None) for each in counts):
        raise ValueError(f"token_counts {counts!r}; allowed are null or a list of objects and nulls")
    return [each or {} for each in counts]


def sample_line(task: str, sample: Mapping[str, Any], metrics: Iterable[str]) -> SampleLine:
    """Turns a raw lmms-eval sample into our per-sample line.

    Args:
        task: lmms-eval task name.
        sample: One object of the samples file.
        metrics: The task's metrics; other keys a task logs (image size, box) are no scores. Scores that are not finite
            numbers are left out.
    """
    report = pruning_report(sample)
    counts = next(iter(_token_counts(sample)), {})
    scores: dict[str, float] = {}
    group: str | None = None
    stratum = _text_or_none(sample.get("stratum"))
    for key in metrics:
        value = sample.get(key)
        score = _score(value)
        if score is not None:
            scores[key] = score
        if isinstance(value, dict):
            group, stratum = _group_of(value, group, stratum)
    return SampleLine(
        task=task,
        doc_id=int(sample["doc_id"]),
        cluster_id=_image_of(task, sample, report),
        group=group,
        stratum=stratum,
        prediction=_text(sample.get("filtered_resps")),
        scores=scores,
        failed=has_failed(sample),
        input_tokens=counts.get("input_tokens"),
        visual_tokens=report.visual_tokens,
        kept_visual_tokens=report.mean_rows,
        output_tokens=counts.get("output_tokens"),
        prefill_s=report.prefill_s,
        total_s=report.total_s,
    )


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _score(value: object) -> float | None:
    if isinstance(value, dict):
        value = value["score"] if "score" in value else _letter_score(value)
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


def _letter_score(value: Mapping[str, object]) -> float | None:
    """Scores a multiple-choice row (MMBench) that lmms-eval only scores at the end; None if it is no such row.

    An answer without a letter is wrong, not missing.
    """
    if not {"answer", "prediction", "index"} <= value.keys():
        return None
    return float(answer_letter(value) == value["answer"])


def _group_of(value: Mapping[str, Any], group: str | None, stratum: str | None) -> tuple[str | None, str | None]:
    """Returns (group, category) of a dictionary-valued score: an MME pair, or a circular MMBench question."""
    if isinstance(value.get("index"), int | float) and "prediction" in value:
        return str(int(value["index"]) % 1_000_000), stratum
    if "category" in value and "question_id" in value:
        return str(value["question_id"]), str(value["category"])
    return group, stratum


def _image_of(task: str, sample: Mapping[str, Any], report: SampleReport) -> str | None:
    """Returns the name of a sample's image: the task's own, else the hash that our model class reports, else None."""
    named = sample.get("cluster_id")
    if named not in (None, "", "None"):  # a task that formats a missing field writes the word
        return str(named)
    if not report.names_images:
        return None
    return f"{task} document {sample['doc_id']}" if report.image is None else f"image {report.image}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


class Fingerprint:
    """Order-independent hash over (document id, text) pairs."""

    def __init__(self) -> None:
        """Starts with no document."""
        self._parts: dict[int, str] = {}

    def add(self, doc_id: int, text: object) -> None:
        """Adds one document."""
        self._parts[doc_id] = hashlib.sha256(_text(text).encode()).hexdigest()

    def hexdigest(self) -> str:
        """Returns the SHA-256 over all documents in ascending order."""
        lines = (f"{doc_id}:{self._parts[doc_id]}\n" for doc_id in sorted(self._parts))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
