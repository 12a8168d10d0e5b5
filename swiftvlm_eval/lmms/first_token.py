"""What is noted when the first token of a batch is there: the time, and whether the model's numbers mean anything."""

import time
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria


class FirstTokenClock(StoppingCriteria):  # type: ignore[misc]
    """Notes when the first token of a batch is there: image encoding and prefill are done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self.now()
        self.first_token: float | None = None

    def now(self) -> float:
        """Seconds, after everything that was asked of the device is done."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Never stops a sample."""
        if self.first_token is None:
            self.first_token = self.now()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class FirstTokenLogits(LogitsProcessor):  # type: ignore[misc]
    """Notes which samples of a batch have finite first-token logits; reads nothing from the device meanwhile.

    Args:
        batch: samples of the batch.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._finite: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Changes nothing; `scores` are [batch x beams, vocabulary]."""
        if self._finite is None:
            # the largest is NaN if any is, and minus infinity, the score of a forbidden token, only if all are
            self._finite = scores.amax(dim=-1).isfinite().reshape(self.batch, -1).all(dim=1)
        return scores

    @property
    def failed(self) -> list[bool]:
        """Whether each sample's answer means nothing; waits for the device."""
        return [False] * self.batch if self._finite is None else (~self._finite).tolist()
