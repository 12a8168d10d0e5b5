"""The batch size of a run: as given, as an unfinished run had it, or chosen now."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from lmms_eval.api.instance import Instance
from loguru import logger

from swiftvlm_eval.efficiency.free_memory import free_memory
from swiftvlm_eval.lmms.answering import Answering, generation_arguments, naming
from swiftvlm_eval.lmms.batching import batches
from swiftvlm_eval.lmms.fitting import (
    agreed,
    estimated_bytes,
    estimated_size,
    largest_that_fits,
    longest,
    processes,
)
from swiftvlm_eval.lmms.out_of_memory import is_out_of_memory, release
from swiftvlm_eval.runs.batch_size import Choice


class Sizing:
    """What is known of a run's batch size.

    Args:
        asked: a number, or `auto`.
        most: the largest that `auto` may choose.

    Attributes:
        size: prompts per batch; None until it is chosen.
        choice: how `auto` chose it; None if it was given.
    """

    def __init__(self, asked: int | Literal["auto"], most: int) -> None:
        self.asked = asked
        self.most = most
        self.size: int | None = None if asked == "auto" else asked
        self.choice: Choice | None = None

    def settled(self, answering: Answering, requests: Sequence[Instance], lengths: Callable[[], Sequence[int]]) -> int:
        """The batch size, chosen with the first requests; a run that goes on keeps the one that it began with.

        Several processes take the smallest that one of them found, so all must call this.

        Args:
            answering: answers the requests.
            requests: all that will be asked of this process.
            lengths: an estimate of each prompt's tokens.

        Raises:
            ValueError: nothing can be said of this machine's memory.
            RuntimeError: the longest requests failed for another reason than memory; the message names the documents.
        """
        if self.size is None:
            known = {} if answering.journal is None else answering.journal.settled
            size: int | None = known.get("batch_size")
            choice: Choice = known.get("choice", "trial")
            if size is None:
                choice = choice_on(answering.checkpoint.model.device)
                size = agreed(self._chosen(answering, requests, lengths(), choice) if requests else None)
                if size is None:
                    return 1  # nothing is asked of any process
                if answering.journal is not None:
                    answering.journal.settle(batch_size=size, choice=choice)
                logger.info("batch_size=auto: {} by {}", size, choice)
            self.size, self.choice = size, choice
        return self.size

    def _chosen(
        self, answering: Answering, requests: Sequence[Instance], lengths: Sequence[int], choice: Choice
    ) -> int:
        new = [generation_arguments(request.args[1])["max_new_tokens"] for request in requests]
        groups = batches(requests, len(requests))  # of equal generation arguments
        rows = [prompt + answer for prompt, answer in zip(lengths, new, strict=True)]
        needy = [requests[number] for number in longest(groups, rows)]
        most = min(self.most, len(needy))
        if choice == "trial":
            return largest_that_fits(lambda size: answers_fit(answering, needy[:size]), most)
        inputs = answering.encode(answering.read(needy[:1])).inputs
        asked = generation_arguments(needy[0].args[1])
        each = estimated_bytes(answering.checkpoint, inputs, asked["max_new_tokens"], asked["num_beams"])
        free = free_memory()
        free = None if free is None else free // processes()  # as if all of them ran on this machine
        return estimated_size(each, most, free)


def choice_on(device: torch.device) -> Choice:
    """How a size is chosen there: a CPU has no error that could be waited for."""
    return "estimate" if device.type == "cpu" else "trial"


def answers_fit(answering: Answering, requests: Sequence[Instance]) -> bool:
    """Whether a batch can be answered; the answers are thrown away, nothing is reported and nothing drawn.

    Raises:
        RuntimeError: it failed for another reason than memory; the message names the documents.
    """
    fits = True
    batch = answering.encode(answering.read(requests))
    with naming(requests):
        try:
            with answering.session.bound():
                answering.run(batch, drawn=False)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
    release(answering.checkpoint.model.device)
    return fits
