"""Makes the layer profile of a loaded model: every document answered once for every layer, resumable."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from swiftvlm_eval.analysis.layer_profile import LayerAnswers
from swiftvlm_eval.analysis.profile_files import (
    SampleScores,
    SampleStore,
    Settings,
    Written,
    refuse_other_profiles,
    write_profile,
)
from swiftvlm_eval.analysis.profile_statistics import ScoredSample, make_profile
from swiftvlm_eval.analysis.selection_split import SelectionTask
from swiftvlm_eval.analysis.shared_prefill import shared_prefill
from swiftvlm_eval.analysis.token_probes import SHARED_LAYERS, kept_count
from swiftvlm_eval.efficiency.flops import layer_flops
from swiftvlm_eval.lmms.model import model_class
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.pruning.selected_layers import ProfiledModel
from swiftvlm_eval.runs.provenance import checkpoint_name, commit, package_versions


class ProfileRun:
    """The profile of one model on drawn documents.

    Args:
        checkpoint: loaded.
        tasks: with their documents.
        out: folder; made by the caller.
        split: that the documents are of.
        seed: of their draw.
        share: of the visual tokens that every layer keeps.

    Raises:
        ValueError: the folder holds another profile, or the model cannot be profiled.
    """

    def __init__(
        self, checkpoint: Checkpoint, tasks: Sequence[SelectionTask], out: Path, *, split: str, seed: int, share: float
    ) -> None:
        self.checkpoint = checkpoint
        self.tasks = tasks
        self.out = out
        self.share = share
        self.num_layers = checkpoint.adapter.decoder.shape.num_layers
        self.settings = Settings(
            model=profiled_model(checkpoint),
            revision=checkpoint.revision,
            family=checkpoint.family,
            tasks=tuple(sorted(task.name for task in tasks)),
            split=split,
            seed=seed,
            top=share,
            attention=checkpoint.adapter.decoder.attention_implementation,
            image_mode=checkpoint.image_mode_in_force,
            code=commit(),
            versions=package_versions(),
        )
        refuse_other_profiles(out, self.settings)
        self.store = SampleStore(out, self.settings, self.num_layers - 1)
        model: Any = model_class(checkpoint.family)(
            checkpoint=checkpoint, method="vanilla", device=checkpoint.model.device.type
        )
        self._render = model.answering.render

    @property
    def total(self) -> int:
        """Documents in all."""
        return sum(len(task.rows) for task in self.tasks)

    def stored(self) -> int:
        """Documents whose scores an earlier call has left."""
        return sum(
            self.store.find(task.name, doc_id, _prompt_hash(task.question(document))) is not None
            for task in self.tasks
            for doc_id, document in task.rows.items()
        )

    def run(self) -> Iterator[tuple[SampleScores, bool]]:
        """Scores every document, yielding it and whether it was answered now or before.

        Raises:
            RuntimeError: a document cannot be answered or scored; the message names it. What was scored is kept.
        """
        with shared_prefill(self.checkpoint.adapter, SHARED_LAYERS) as shared:
            answers = LayerAnswers(self.checkpoint, self.share, shared)
            for task in self.tasks:
                for doc_id, document in task.rows.items():
                    try:
                        yield self._sample(answers, task, doc_id, document)
                    except (ValueError, OSError, RuntimeError, TypeError, KeyError) as error:
                        raise RuntimeError(f"{task.name} doc_id {doc_id}: {error}") from error

    def _sample(
        self, answers: LayerAnswers, task: SelectionTask, doc_id: int, document: Any
    ) -> tuple[SampleScores, bool]:
        question = task.question(document)
        prompt = _prompt_hash(question)
        known = self.store.find(task.name, doc_id, prompt)
        if known is not None:
            return known, False
        images = task.images(document)
        found = answers.answer(self._render(question, len(images)), images, task.generation)
        vanilla, cluster = task.score(document, found.vanilla)
        by_layer = tuple(task.score(document, text)[0] for _, text in sorted(found.by_layer.items()))
        sample = SampleScores(
            task=task.name,
            doc_id=doc_id,
            prompt=prompt,
            scored=ScoredSample(cluster or f"doc {doc_id}", vanilla, by_layer),
            not_finite=found.not_finite,
            num_visual=found.num_visual,
            num_text=found.num_text,
        )
        self.store.add(sample)
        return sample, True

    def finish(self, samples: Sequence[SampleScores], stages: int) -> Written:
        """Chooses the layers and writes the files.

        Args:
            samples: of all documents.
            stages: most layers to choose.

        Raises:
            ValueError: documents are missing, or there is no x; see `make_profile`.
        """
        if len(samples) != self.total:
            raise ValueError(f"{len(samples)} of {self.total} documents are scored; run select-layers again")
        by_task = {task.name: [one.scored for one in samples if one.task == task.name] for task in self.tasks}
        profile = make_profile(by_task)
        failed = Counter(layer for one in samples for layer in one.not_finite)
        extra = {
            "metrics": {task.name: task.metric for task in self.tasks},
            "not_finite": {str(layer): count for layer, count in sorted(failed.items())},
            "shared": self.shared_facts(samples),
        }
        return write_profile(self.out, self.settings, profile, stages, extra)

    def shared_facts(self, samples: Sequence[SampleScores]) -> dict[str, Any]:
        """What is run once a document instead of once an answer, and the share of decoder prefill that this saves.

        By formula, on the executed rows of the documents: the first two layers of all answers but vanilla's.
        """
        shape, layers = self.checkpoint.adapter.decoder.shape, self.num_layers
        saved = whole = 0.0
        for one in samples:
            full = layer_flops(one.num_visual + one.num_text, shape)
            cut = layer_flops(kept_count(self.share, one.num_visual) + one.num_text, shape)
            own = (layers - 1) * SHARED_LAYERS * full
            saved += own
            whole += layers * full + own + (layers - 1) * (layers - SHARED_LAYERS) * cut
        return {
            "answers_per_document": layers,
            "image_encodings_per_document": 1,
            "first_layers_per_document": 1,
            "decoder_prefill_flops_saved": round(saved / whole, 4) if whole else 0.0,
        }


def profiled_model(checkpoint: Checkpoint) -> ProfiledModel:
    """What tells the model from others."""
    return ProfiledModel(
        name=checkpoint_name(checkpoint.name, in_place=True),
        content=checkpoint.content,
        dtype=str(checkpoint.model.dtype).removeprefix("torch."),
        num_layers=checkpoint.adapter.decoder.shape.num_layers,
    )


def _prompt_hash(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:16]
