"""What an analysis compares, on which model: named once, for its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swiftvlm_eval.analysis.sampled_prompts import Prompt
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.prune import prune
from swiftvlm_eval.pruning.trace import SampleTrace
from swiftvlm_eval.runs.provenance import checkpoint_name, commit, package_versions


@dataclass(frozen=True)
class Contender:
    """A method at a budget.

    Attributes:
        label: as typed: `swiftvlm[merge=false]`.
        method: with its options.
        budget: share of N.
    """

    label: str
    method: PruningMethod
    budget: float

    @property
    def described(self) -> dict[str, Any]:
        """For files."""
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in self._options()}
        return {
            "label": self.label,
            "name": self.method.name,
            "options": options,
            "budget": self.budget,
            "source_sha256": self.method.source_sha256,
        }

    def _options(self) -> list[tuple[str, Any]]:
        return sorted(self.method.options.items())


def model_described(checkpoint: Checkpoint) -> dict[str, Any]:
    """The model and the code, for files; a folder without the folders above it."""
    return {
        "model": checkpoint_name(checkpoint.name),
        "revision": checkpoint.revision,
        "content": checkpoint.content,
        "family": checkpoint.family,
        "decoder_layers": checkpoint.adapter.decoder.shape.num_layers,
        "dtype": str(checkpoint.model.dtype).removeprefix("torch."),
        "attention": checkpoint.adapter.decoder.attention_implementation,
        "image_mode": checkpoint.image_mode_in_force,
        "commit": commit(),
        "versions": package_versions(),
    }


def prefill(
    checkpoint: Checkpoint, method: PruningMethod, budget: float | None, prompt: Prompt, seed: int
) -> SampleTrace:
    """One prefill of one prompt; what happened."""
    with prune(checkpoint.model, method, budget, seed=seed) as session, torch.inference_mode():
        session.sample_keys, session.questions = [prompt.key], [prompt.question]
        checkpoint.model(**prompt.inputs, use_cache=True, logits_to_keep=1)
        return session.traces[0]


def stages_of(contender: Contender, checkpoint: Checkpoint, num_visual: int) -> tuple[int, ...]:
    """The boundaries of a contender on a model.

    Raises:
        ValueError: it has none, or cannot meet its budget.
    """
    method = contender.method.with_recommended(checkpoint.adapter.recommended_layers)
    plan = method.plan(num_visual, checkpoint.adapter.decoder.shape.num_layers, contender.budget)
    if not plan.stages:
        raise ValueError(f"methods={contender.label!r}: it never prunes; allowed are methods with a stage")
    return tuple(stage.boundary for stage in plan.stages)


def require_different(contenders: Sequence[Contender]) -> None:
    """Refuses one contender named twice.

    Raises:
        ValueError: names it.
    """
    labels = [contender.label for contender in contenders]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ValueError(f"methods={','.join(labels)}: {twice} stands twice; allowed is once")
