"""Requests answered: batches, generation, and log-likelihoods of continuations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from loguru import logger
from PIL import Image
from transformers import LogitsProcessorList, StoppingCriteriaList

from swiftvlm_eval.lmms.batching import is_sampled
from swiftvlm_eval.lmms.feeding import ahead, encoders
from swiftvlm_eval.lmms.first_token import FirstTokenClock, FirstTokenLogits
from swiftvlm_eval.lmms.out_of_memory import in_halves, is_out_of_memory, release
from swiftvlm_eval.lmms.prepared import Prepared, Read, with_own_processor
from swiftvlm_eval.lmms.reporting import PrunedTokenCounts, Reporting, Seconds
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.images import image_digest
from swiftvlm_eval.models.prompts import continuation_ids, without_images
from swiftvlm_eval.models.weights import first_line
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.runs.journal import Journal
from swiftvlm_eval.runs.report import REPORT_KEY, report_in

DEFAULT_MAX_NEW_TOKENS = 1024


@dataclass(frozen=True)
class Generated:
    """What the model made of a batch.

    Attributes:
        sequences: token ids, prompts included, [batch, length].
        failed: whether each sample's numbers were not finite.
        prefill: seconds until the first token was there.
        total: seconds until the last one was.
    """

    sequences: torch.Tensor
    failed: Sequence[bool]
    prefill: float | None
    total: float


class Answering:
    """A checkpoint at work on requests.

    Args:
        session: prunes.
        checkpoint: that the session prunes.
        render: user's text and number of images -> prompt.
        document: the document of a request.
        reporting: what is said of each answer.
        journal: answers of an unfinished run; None keeps none.
        timed: answers are made one at a time with nothing else going on, so that their seconds mean something.
    """

    def __init__(
        self,
        session: PruningSession,
        checkpoint: Checkpoint,
        render: Callable[[str, int], str],
        document: Callable[[Instance], Any],
        reporting: Reporting,
        journal: Journal | None,
        timed: bool,
    ) -> None:
        self.session = session
        self.checkpoint = checkpoint
        self.render = render
        self.document = document
        self.reporting = reporting
        self.journal = journal
        self.timed = timed

    def read(self, requests: Sequence[Instance]) -> Read:
        """Requests with their images, decoded.

        Raises:
            RuntimeError: something failed; the message names the document.
        """
        images, names = [], []
        for request in requests:
            with naming([request]):
                images.append(self._images(request, request.args[2]))
                names.append(image_digest(images[-1]))
        return Read(requests, images, names)

    def encode(self, read: Read, checkpoint: Checkpoint | None = None) -> Prepared:
        """Inputs of the model, on the host.

        Args:
            read: the batch.
            checkpoint: stands in for the own one, whose processor another thread may be using.

        Raises:
            RuntimeError: something failed; the message names the documents.
        """
        with naming(read.requests):
            asked = zip(read.requests, read.images, strict=True)
            prompts = [self.render(request.args[0], len(own)) for request, own in asked]
            return Prepared(read, (checkpoint or self.checkpoint).encode_on_host(prompts, read.images))

    @contextmanager
    def prepared(self, batches: Sequence[Sequence[Instance]], look_ahead: int) -> Iterator[Iterator[Prepared]]:
        """The batches, in order, prepared in threads up to `look_ahead` batches ahead of the last one handed out."""
        spare: SimpleQueue[Checkpoint] = SimpleQueue()
        for _ in range(encoders(look_ahead) if look_ahead else 0):
            spare.put(with_own_processor(self.checkpoint))

        def encode(read: Read) -> Prepared:
            if not look_ahead:
                return self.encode(read)
            own = spare.get()
            try:
                return self.encode(read, own)
            finally:
                spare.put(own)

        with ahead(batches, self.read, encode, look_ahead) as found:
            yield found

    def stored(self, requests: Sequence[Instance]) -> list[GenerationResult] | None:
        """The answers that the journal has, if it has all of them."""
        found = [None if self.journal is None else self.journal.find(request) for request in requests]
        return [_as_stored(*answer) for answer in found if answer] if all(found) else None

    def answer(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers of requests whose generation arguments are equal, stored or made, inside a bound session.

        Raises:
            RuntimeError: something failed; the message names the documents.
        """
        found = self.stored(requests)
        if found is not None:
            return found
        prepared = self.encode(self.read(requests))
        with naming(requests):
            return self.generate(prepared)

    def answer_or_halve(self, batch: Prepared) -> list[GenerationResult]:
        """Answers of a batch, made in halves if it does not fit into memory; binds the session.

        Raises:
            RuntimeError: something failed, also that a document alone does not fit; the message names the documents.
        """
        if (found := self.stored(batch.requests)) is not None:
            return found
        halved = 0 if len(batch.requests) > 1 else None

        def attempt(part: Prepared, failures: int) -> list[GenerationResult] | None:
            with naming(part.requests):
                try:
                    with self.session.bound():
                        return self.generate(part, None if halved is None else failures)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    if len(part.requests) == 1:
                        raise RuntimeError(f"out of memory with this document alone ({first_line(error)})") from error
            # here nothing refers to the failed batch any more
            logger.warning("a batch of {} ran out of memory and is answered in halves", len(part.requests))
            release(self.checkpoint.model.device)
            return None

        parts = in_halves(attempt, batch, lambda part: [self.encode(half) for half in part.read.halves()])
        return [answer for answers in parts for answer in answers]

    def generate(self, batch: Prepared, halved_batches: int | None = None) -> list[GenerationResult]:
        """Answers of a batch, from the model, and into the journal.

        Args:
            batch: to be answered.
            halved_batches: batches that ran out of memory since the last answer, of which this one was a part.
        """
        made, requests = self.run(batch), batch.requests
        prompt_length, gen_kwargs = batch.inputs["input_ids"].shape[1], requests[0].args[1]
        seconds = Seconds(made.prefill, made.total) if self.timed else Seconds()
        results = []
        for number, (request, name, failed) in enumerate(zip(requests, batch.read.names, made.failed, strict=True)):
            trace = self.session.traces[number * (len(self.session.traces) // len(requests))]
            emitted = self._emitted(made.sequences[number], prompt_length)
            text = self.checkpoint.tokenizer.decode(emitted, skip_special_tokens=True)
            halved = 0 if halved_batches and number else halved_batches
            counts = self.reporting.counts(request, trace, name, len(emitted), failed, seconds, halved)
            results.append(GenerationResult(cut_at(text, gen_kwargs.get("until")), counts))
            self.reporting.count(request, trace, len(emitted), made.total / len(requests))
        for request, result in zip(requests, results, strict=True):
            if self.journal is not None:
                self.journal.add(request, result.text, result.token_counts.to_dict())
        return results

    def run(self, batch: Prepared, drawn: bool = True) -> Generated:
        """The model on a batch; nothing is reported.

        Args:
            batch: to be answered.
            drawn: answers are drawn where the task asks for that.
        """
        clock = FirstTokenClock(self.checkpoint.model.device)
        first_logits = FirstTokenLogits(len(batch.requests))
        inputs = self.checkpoint.to_device(batch.inputs)
        gen_kwargs = batch.requests[0].args[1]
        self._announce(batch.requests)
        clock.start = clock.now()
        sequences = self.checkpoint.model.generate(
            **inputs,
            **generation_arguments(gen_kwargs if drawn else {**gen_kwargs, "do_sample": False}),
            pad_token_id=self.checkpoint.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([first_logits]),
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        total = clock.now() - clock.start
        prefill = None if clock.first_token is None else clock.first_token - clock.start
        return Generated(sequences, first_logits.failed, prefill, total)

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
        trace, name = self.session.traces[0], image_digest(images)
        counts = self.reporting.counts(request, trace, name, len(ids), not finite, Seconds())
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


def generation_arguments(gen_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` from a task's generation_kwargs; greedy unless the task asks for sampling."""
    sample = is_sampled(gen_kwargs)
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
