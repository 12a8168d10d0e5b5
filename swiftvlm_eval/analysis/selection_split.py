"""Documents to choose layers on: a split of a task's data that the benchmark itself is not scored on.

A task of ours that loads from the hub loads another split of the same repository; a task of lmms-eval has its splits
at hand; the demo's tasks draw scenes with the generator that drew their benchmark, from the split's own seeds.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from swiftvlm_eval.demo import DATA_NAMES
from swiftvlm_eval.lmms.answering import generation_arguments
from swiftvlm_eval.results.benchmarks import shipped_benchmarks

DEMO_SPLIT: Final = "val"
_OF_A_SOURCE = ("repository", "config", "revision")
"""What another split of a repository shares with the one that is scored."""


@dataclass(frozen=True)
class SelectionTask:
    """A task with the documents that layers are chosen on.

    Attributes:
        name: of the task.
        task: lmms-eval's, which asks and scores.
        metric: its score per document, larger is better, whose mean is the task's.
        rows: documents, by their number in the split.
    """

    name: str
    task: Any
    metric: str
    rows: Mapping[int, Any]

    def question(self, document: Any) -> str:
        """The user's text, as lmms-eval asks."""
        return str(self.task.fewshot_context(document, 0))

    def images(self, document: Any) -> list[Any]:
        """The images of a document."""
        return list(self.task.doc_to_visual(document) or [])

    @property
    def generation(self) -> Mapping[str, Any]:
        """Generation arguments."""
        return dict(self.task.config.generation_kwargs or {})

    def score(self, document: Any, answer: str) -> tuple[float, str]:
        """What an answer scores, and the unit (an image) that the document belongs to; empty where none is told.

        Raises:
            ValueError: the task gives no number.
        """
        found = self.task.process_results(document, [answer])
        value = found.get(self.metric)
        if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
            raise ValueError(f"tasks={self.name}: its metric {self.metric} is no number for each document")
        return float(value), str(found.get("cluster_id") or "")


def selection_task(name: str, task: Any, split: str, samples: int, seed: int) -> SelectionTask:
    """Draws documents of a split at random.

    Args:
        name: of the task.
        task: lmms-eval's.
        split: name of the split.
        samples: how many documents.
        seed: of the draw; and of the scenes, for the demo's tasks.

    Raises:
        ValueError: a task that cannot be profiled, the split that is scored, no such split, or too few documents.
    """
    metric = _metric(name, task)
    rows = _rows(name, task, split, samples, seed)
    if len(rows) < samples:
        raise ValueError(
            f"samples={samples}: {name} has {len(rows)} documents in split {split!r}; allowed is at most that many"
        )
    drawn = np.random.default_rng(seed).choice(len(rows), samples, replace=False)
    return SelectionTask(name, task, metric, _Drawn(rows, drawn.tolist()))


class _Drawn(Mapping[int, Any]):
    """Some rows of a split by their numbers, ascending; a row (with its image) is read when it is asked for."""

    def __init__(self, rows: Any, numbers: Iterable[int]) -> None:
        self._rows = rows
        self._numbers = dict.fromkeys(sorted(numbers))

    def __getitem__(self, number: int) -> Any:
        if number not in self._numbers:
            raise KeyError(number)
        return self._rows[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def _metric(name: str, task: Any) -> str:
    """The task's score, if it is a mean over documents of greedy answers.

    Raises:
        ValueError: it is something else.
    """
    config = task.config
    if config.output_type != "generate_until" or config.filter_list:
        raise ValueError(f"tasks={name}: allowed are tasks that generate answers and score them unfiltered")
    if generation_arguments(config.generation_kwargs or {})["do_sample"]:
        raise ValueError(f"tasks={name}: it samples its answers; allowed are tasks that answer greedily")
    known = {entry.task: entry for entry in shipped_benchmarks().benchmarks.values()}
    listed = {entry["metric"]: entry for entry in config.metric_list or []}
    metric = known[name].metric if name in known else next(iter(listed), "")
    means = name not in known or known[name].reduction == "mean"
    entry = listed.get(metric, {})
    aggregation = entry.get("aggregation")
    mean = aggregation == "mean" or getattr(aggregation, "__name__", "") == "mean"
    if not (means and mean and entry.get("higher_is_better")):
        raise ValueError(
            f"tasks={name}: its score {metric or '(none)'} is not a mean over documents that rises with the answers; "
            "x of a layer needs one"
        )
    return metric


def _rows(name: str, task: Any, split: str, samples: int, seed: int) -> Any:
    """All documents of the split.

    Raises:
        ValueError: see `selection_task`.
    """
    scored = task.config.test_split or task.config.validation_split
    if name in DATA_NAMES:
        return _demo_rows(name, task, split, samples, seed)
    source = _source(task)
    if split == (source["split"] if source else scored):
        raise ValueError(f"split={split!r}: {name} is scored on it; layers are chosen on another one")
    if source is not None:
        return _hub_rows(name, task, source, split)
    if split not in task.dataset:
        raise ValueError(f"split={split!r}: {name} has {', '.join(map(repr, task.dataset))}")
    rows = task.dataset[split]
    processed = split in (task.config.training_split, task.config.validation_split, task.config.fewshot_split)
    return rows if processed or task.config.process_docs is None else task.config.process_docs(rows)


def _demo_rows(name: str, task: Any, split: str, samples: int, seed: int) -> Any:
    """Fresh scenes of the demo's split, at least one document each."""
    from datasets import Dataset

    if split != DEMO_SPLIT:
        raise ValueError(
            f"split={split!r}: the demo was trained on 'train' and is scored on 'test'; allowed is {DEMO_SPLIT!r}"
        )
    folder = _demo_folder(samples, seed).name
    rows = Dataset.from_parquet(f"{folder}/{name}.parquet", cache_dir=folder, keep_in_memory=True)
    return task.config.process_docs(rows) if task.config.process_docs else rows


@cache
def _demo_folder(scenes: int, seed: int) -> tempfile.TemporaryDirectory[str]:
    """Parquet files of fresh scenes; they are there until the process ends."""
    from swiftvlm_eval.demo.data import generate_split

    folder = tempfile.TemporaryDirectory()
    generate_split(DEMO_SPLIT, scenes, seed, Path(folder.name))
    return folder


def _source(task: Any) -> dict[str, Any] | None:
    """The entry of `sources.json` that a task of ours loads, None for other tasks."""
    given = task.config.dataset_kwargs or {}
    if task.config.dataset_path != "json" or "field" not in given:
        return None
    (file,) = given["data_files"].values()
    entry = json.loads(Path(file).read_text(encoding="utf-8"))[given["field"]][0]
    return dict(entry) if "repository" in entry else None


def _hub_rows(name: str, task: Any, source: Mapping[str, Any], split: str) -> Any:
    """Another split of a repository, through the task's own `process_docs`.

    Raises:
        ValueError: it cannot be had; the message says why.
    """
    from datasets import Dataset

    other = {key: source[key] for key in _OF_A_SOURCE if key in source} | {"split": split}
    rows = task.config.process_docs(Dataset.from_list([other]))
    try:
        task.doc_to_text(rows[0])  # what could not be loaded travels as the only document
    except ValueError as error:
        raise ValueError(f"split={split!r}: {name}: {error}") from error
    return rows
