"""Requests answered: batches, generation, and log-likelihoods of continuations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from PIL import Image
from transformers import LogitsProcessorList, StoppingCriteriaList

from swiftvlm_eval.lmms.first_token import FirstTokenClock, FirstTokenLogits
from swiftvlm_eval.lmms.reporting import PrunedTokenCounts, Reporting, Seconds
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.prompts import continuation_ids, without_images
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.runs.journal import Journal
from swiftvlm_eval.runs.report import REPORT_KEY, report_in

DEFAULT_MAX_NEW_TOKENS = 1024


class Answering:
    """A checkpoint at work on requests while its session is bound.

    Args:
        session: prunes.
        checkpoint: that the session prunes.
        render: user's text and number of images -> prompt.
        document: the document of a request.
        reporting: what is said of each answer.
        journal: answers of an unfinished run; None keeps none.
    """

    def __init__(
        self,
        session: PruningSession,
        checkpoint: Checkpoint,
        render: Callable[[str, int], str],
        document: Callable[[Instance], Any],
        reporting: Reporting,
        journal: Journal | None,
    ) -> None:
        self.session = session
        self.checkpoint = checkpoint
        self.render = render
        self.document = document
        self.reporting = reporting
        self.journal = journal

    def answer(self, batch: Sequence[Instance]) -> list[GenerationResult]:
        """Answers of a batch whose generation arguments are equal; stored ones if there is one for every request.

        Raises:
            RuntimeError: something failed; the message names the documents.
        """
        with naming(batch):
            stored = [None if self.journal is None else self.journal.find(request) for request in batch]
            if all(stored):
                return [_as_stored(*answer) for answer in stored if answer]
            results = self.generate(batch)
            for request, result in zip(batch, results, strict=True):
                if self.journal is not None:
                    self.journal.add(request, result.text, result.token_counts.to_dict())
            return results

    def generate(self, batch: Sequence[Instance]) -> list[GenerationResult]:
        """Answers of a batch, from the model."""
        images = [self._images(request, request.args[2]) for request in batch]
        prompts = [self.render(request.args[0], len(own)) for request, own in zip(batch, images, strict=True)]
        device = self.checkpoint.model.device
        clock, first_logits = FirstTokenClock(device), FirstTokenLogits(len(batch))
        inputs = self.checkpoint.encode(prompts, images)
        self._announce(batch)
        clock.start = clock.now()
        gen_kwargs = batch[0].args[1]
        sequences = self.checkpoint.model.generate(
            **inputs,
            **generation_arguments(gen_kwargs),
            pad_token_id=self.checkpoint.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([first_logits]),
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        total = clock.now() - clock.start
        prefill = None if clock.first_token is None else clock.first_token - clock.start
        seconds = Seconds(prefill, total) if len(batch) == 1 else Seconds()
        results = []
        outcomes = zip(batch, images, first_logits.failed, strict=True)
        for number, (request, own, failed) in enumerate(outcomes):
            trace = self.session.traces[number * (len(self.session.traces) // len(batch))]
            emitted = self._emitted(sequences[number], inputs["input_ids"].shape[1])
            text = self.checkpoint.tokenizer.decode(emitted, skip_special_tokens=True)
            counts = self.reporting.counts(request, trace, own, len(emitted), failed, seconds)
            results.append(GenerationResult(cut_at(text, gen_kwargs.get("until")), counts))
            self.reporting.count(request, trace, len(emitted), total / len(batch))
        return results

    def score(self, request: Instance) -> GenerationResult:
        """Mean negative log-likelihood per token of a continuation, and whether it is the greedy one.

        Raises:
            RuntimeError: something failed; the message names the document.
        """
        with naming([request]):
            return self._score(request)

    def _score(self, request: Instance) -> GenerationResult:
        context, doc_to_target, doc_to_visual = request.args[:3]
        # a choice comes with its delimiter in front, a target without
        given = isinstance(doc_to_target, str)
        target = doc_to_target if given else f" {doc_to_target(self.document(request))}"
        images = self._images(request, doc_to_visual)
        prompt = self.render(context, len(images))
        inputs = self.checkpoint.encode([prompt], [images])
        ids = continuation_ids(self.checkpoint.tokenizer, prompt, target.rstrip())
        model = self.checkpoint.model
        continuation = torch.tensor([ids], device=model.device)
        self._announce([request])
        prefill = model(**inputs, use_cache=True, logits_to_keep=1)
        logits = prefill.logits
        if len(ids) > 1:
            rest = model(input_ids=continuation[:, :-1], past_key_values=prefill.past_key_values, use_cache=True)
            logits = torch.cat([logits, rest.logits], dim=1)
        loss = torch.nn.functional.cross_entropy(logits[0].float(), continuation[0])
        greedy, finite = (logits[0].argmax(dim=-1) == continuation[0]).all(), logits.isfinite().all()
        loss, greedy, finite = torch.stack([loss, greedy.float(), finite.float()]).tolist()  # one wait for the device
        counts = self.reporting.counts(request, self.session.traces[0], images, len(ids), not finite, Seconds())
        return GenerationResult((loss, bool(greedy)), counts)

    def _announce(self, batch: Sequence[Instance]) -> None:
        """Tells the session what the next prefill is of."""
        self.session.sample_keys = [f"{request.args[-2]}/{request.args[-3]}" for request in batch]
        self.session.questions = [without_images(request.args[0]) for request in batch]

    def _images(self, request: Instance, doc_to_visual: Callable[[Any], Any]) -> list[Image.Image]:
        visuals = doc_to_visual(self.document(request)) or []
        for visual in visuals:
            if not isinstance(visual, Image.Image):
                raise TypeError(f"visual of type {type(visual).__name__}: only images are supported")
        return list(visuals)

    def _emitted(self, sequence: torch.Tensor, prompt_length: int) -> list[int]:
        """Token ids that the model produced, up to and with the end token."""
        ids: list[int] = sequence[prompt_length:].tolist()
        ends = self.checkpoint.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        for position, token in enumerate(ids):
            if token in ends:
                return ids[: position + 1]
        return ids


def _as_stored(text: str, counts: Mapping[str, Any]) -> GenerationResult:
    report = report_in(counts) if REPORT_KEY in counts else None
    return GenerationResult(
        text, PrunedTokenCounts(counts.get("input_tokens"), counts.get("output_tokens"), None, report)
    )


@contextmanager
def naming(batch: Sequence[Instance]) -> Iterator[None]:
    """Names the documents at work when something fails, because lmms-eval would not."""
    try:
        yield
    except Exception as error:
        documents = ", ".join(f"{request.args[-2]} doc_id {request.args[-3]}" for request in batch)
        raise RuntimeError(f"{documents}: {error}") from error


def batches(requests: Sequence[Instance], size: int) -> Iterator[list[int]]:
    """Request numbers in batches of equal generation arguments; order is kept within these."""
    groups: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(repr(sorted(request.args[1].items(), key=str)), []).append(number)
    for numbers in groups.values():
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]


def generation_arguments(gen_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` from a task's generation_kwargs; greedy unless the task asks for sampling."""
    sample = bool(gen_kwargs.get("do_sample", False)) and float(gen_kwargs.get("temperature") or 0) > 0
    arguments: dict[str, Any] = {
        "max_new_tokens": int(gen_kwargs.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS),
        "num_beams": int(gen_kwargs.get("num_beams") or 1),
        "do_sample": sample,
        "use_cache": True,
    }
    for option in ("temperature", "top_p", "top_k"):
        arguments[option] = gen_kwargs.get(option) if sample else None
    return arguments


def cut_at(text: str, until: str | Sequence[str] | None) -> str:
    """The answer up to the first stop string, stripped."""
    stops = [until] if isinstance(until, str) else list(until or [])
    text = text.strip()
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)].strip() if ends else text
