"""Profiles of the tiny model on drawn pictures, asked and scored by a task made by hand."""

import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lmms.tiny_runs import QUESTIONS, SIZES, checkpoint

from swiftvlm_eval.analysis.profile_files import SampleScores, Written
from swiftvlm_eval.analysis.profile_run import ProfileRun
from swiftvlm_eval.analysis.selection_split import SelectionTask
from swiftvlm_eval.testing.tiny_models import make_image


class HandTask:
    """Asks six questions; scores an answer by its checksum, so that other answers score otherwise."""

    config = SimpleNamespace(generation_kwargs={"max_new_tokens": 3, "until": []})
    broken: int | None = None

    def fewshot_context(self, document: Any, number: int) -> str:
        return QUESTIONS[document["number"]]

    def doc_to_visual(self, document: Any) -> list[Any]:
        if document["number"] == self.broken:
            raise OSError("cannot identify image file")
        return [make_image(*SIZES[document["number"]], document["number"])]

    def process_results(self, document: Any, results: list[str]) -> dict[str, Any]:
        return {"score": zlib.crc32(results[0].encode()) % 5 / 4 + 0.25, "cluster_id": f"image {document['number']}"}


def hand_task(name: str = "by_hand", documents: int = 6) -> SelectionTask:
    return SelectionTask(name, HandTask(), "score", {number: {"number": number} for number in range(documents)})


def make_run(out: Path, own: Any = None, *tasks: SelectionTask, **options: Any) -> ProfileRun:
    return ProfileRun(
        own or checkpoint(), tasks or [hand_task()], out, **{"split": "val", "seed": 0, "share": 0.2, **options}
    )


def make(out: Path, own: Any = None, *tasks: SelectionTask, stages: int = 3, **options: Any) -> Written:
    run = make_run(out, own, *tasks, **options)
    return run.finish([sample for sample, _ in run.run()], stages)


def collected(run: ProfileRun) -> list[tuple[SampleScores, bool]]:
    return list(run.run())
