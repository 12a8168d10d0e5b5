"""What a method says of the samples of a prefill: asked one by one, or in one go where samples are alike.

A method speaks of one sample. Where it declares itself `vectorized`, samples that differ only in the numbers inside
their tensors are put side by side, and `torch.vmap` makes its operations those of all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.tower import TowerView
from swiftvlm_eval.pruning.arrangement import Apart
from swiftvlm_eval.pruning.boundary import Boundary, Sample
from swiftvlm_eval.pruning.composed import Composed
from swiftvlm_eval.pruning.contract import PruningMethod, Signals
from swiftvlm_eval.pruning.layer_attention import LayerAttention
from swiftvlm_eval.pruning.layer_rows import ModuleIO
from swiftvlm_eval.pruning.padded import PaddedRows, padded
from swiftvlm_eval.pruning.rotations import SampleRotation
from swiftvlm_eval.pruning.schedule import Stage
from swiftvlm_eval.pruning.signals import PaddedSignals, SampleSignals, Sources
from swiftvlm_eval.pruning.trees import form, side_by_side, tensors_of, with_tensors

MOST_PAIRS = 2**24
"""Pairs of visual rows that are looked at in one go: 64 MB in float32 where a method compares all with all."""
Asked = Callable[[Signals], Any]


class Consultation:
    """Asks one method about the samples of one prefill after another.

    Args:
        method: is asked.
        adapter: the model.
        layout: of a sample of the current prefill.
        question: likewise, the user's question; None where nobody gave it.
        seed: likewise, of a sample for one of several methods.

    Attributes:
        asked_alone: stages, by boundary and whether samples stood with their padding, at which the method turned out
            to need its samples one by one.
    """

    def __init__(
        self,
        method: PruningMethod,
        adapter: FamilyAdapter,
        layout: Callable[[int], VisualLayout],
        question: Callable[[int], str | None],
        seed: Callable[[int, int], int],
    ) -> None:
        self.method = method
        self.adapter = adapter
        self.layout = layout
        self.question = question
        self.seed = seed
        self.asked_alone: set[tuple[int, bool]] = set()

    def ask(self, what: Asked, due: Mapping[int, Stage], at: Boundary) -> dict[int, Any]:
        """What a function of the method makes of every sample that is due, by the sample's number."""
        found: dict[int, Any] = {}
        if len(due) > 1 and is_vectorized(self.method):
            for stage in dict.fromkeys(due.values()):
                numbers = [number for number, own in due.items() if own == stage]
                found |= self._together(what, stage, numbers, at) if len(numbers) > 1 else {}
        for number, stage in due.items():
            if number not in found:
                signals = self._signals(stage, at.sample(number), number, partial(self.layout, number), at)
                found[number] = what(signals)
        return found

    def _together(self, what: Asked, stage: Stage, numbers: Sequence[int], at: Boundary) -> dict[int, Any]:
        """Answers of those samples that can be asked in one go, with their padding if they differ in length."""
        if (stage.boundary, False) in self.asked_alone:  # what the host reads there it reads with padding, too
            return {}
        groups: dict[Any, dict[int, Sample]] = {}
        for number in numbers:
            sample = self._held(at.sample(number), number, at)
            groups.setdefault(form(sample), {})[number] = sample
        if len(groups) > 1 and (stage.boundary, True) not in self.asked_alone:
            try:
                with_padding = padded(numbers, at)
                held = [self._held(sample, number, at) for number, sample in zip(numbers, with_padding, strict=True)]
                if len({form(sample) for sample in held}) == 1:
                    return self._in_one_go(what, stage, dict(zip(numbers, held, strict=True)), at)
            except Apart:
                self.asked_alone.add((stage.boundary, True))
        found: dict[int, Any] = {}
        for group in groups.values():
            with suppress(Apart):
                found |= self._in_one_go(what, stage, group, at) if len(group) > 1 else {}
        return found

    def _held(self, sample: Sample, number: int, at: Boundary) -> Sample:
        """The sample with everything that is read from elsewhere when it is asked for alone."""
        rotation = sample.rotation
        rotation = rotation.held if isinstance(rotation, SampleRotation) else rotation
        return replace(sample, rotation=rotation, tower=None if at.tower is None else at.tower(number))

    def _in_one_go(self, what: Asked, stage: Stage, samples: Mapping[int, Sample], at: Boundary) -> dict[int, Any]:
        """Answers for samples of one form.

        Raises:
            Apart: they must be asked one by one.
        """
        numbers, rows = list(samples), next(iter(samples.values())).rows.arrangement.num_visual
        size = max(1, MOST_PAIRS // max(1, rows * rows))
        found: dict[int, Any] = {}
        for start in range(0, len(numbers), size):
            chunk = numbers[start : start + size]
            if len(chunk) == 1:
                continue
            try:
                found |= self._vectorized(what, stage, {number: samples[number] for number in chunk}, at)
            except torch.OutOfMemoryError as error:
                raise Apart("memory") from error
            except RuntimeError as error:  # so says vmap of what it cannot do, before anything has happened
                self.asked_alone.add((stage.boundary, isinstance(samples[chunk[0]].rows, PaddedRows)))
                raise Apart(str(error)) from error
        return found

    def _vectorized(self, what: Asked, stage: Stage, samples: Mapping[int, Sample], at: Boundary) -> dict[int, Any]:
        sample, answers = next(iter(samples.values())), []

        def layout() -> VisualLayout:
            found = {id(own): own for own in map(self.layout, samples)}
            if len(found) > 1:
                raise Apart("layout")
            return next(iter(found.values()))

        def one(tensors: list[Tensor]) -> list[Tensor]:
            shown = with_tensors(sample, iter(tensors))
            answers.append(what(self._signals(stage, shown, None, layout, at)))
            return tensors_of(answers[0])

        columns = [side_by_side(column) for column in zip(*map(tensors_of, samples.values()), strict=True)]
        in_dims = [dim for _, dim in columns]
        made = torch.vmap(one, in_dims=(in_dims,), randomness="error")([tensor for tensor, _ in columns])
        return {
            number: with_tensors(answers[0], iter([column[place] for column in made]))
            for place, number in enumerate(samples)
        }

    def _signals(
        self, stage: Stage, sample: Sample, number: int | None, layout: Callable[[], VisualLayout], at: Boundary
    ) -> SampleSignals:
        """Of one sample, or of several that have no number of their own."""
        rows, decoder = sample.rows, self.adapter.decoder
        scorer = None
        if stage.scored_by == "previous":
            scorer = LayerAttention(decoder, stage.boundary - 1, rows, sample.before, sample.rotation)
            if sample.cached is not None and sample.normed is not None:
                scorer.ran(sample.cached[0], sample.normed)
        elif stage.scored_by == "next":
            scorer = LayerAttention(decoder, stage.boundary, rows, sample.sequence, sample.rotation)
        watched = "module_io" in self.method.needs and stage.boundary > 0
        signals = PaddedSignals if isinstance(rows, PaddedRows) else SampleSignals
        return signals(
            stage=stage,
            num_visual=rows.prompt.arrangement.num_visual,
            states=rows.arrangement.visual_of(sample.sequence),
            index=rows.index,
            places=rows.arrangement.visual_of(rows.places),
            text_states=sample.sequence,
            num_question=rows.num_question,
            carry=sample.carry,
            sources=Sources(
                rows=rows,
                sequence=sample.sequence,
                before=sample.before,
                scorer=scorer,
                cached=sample.cached,
                module_io=partial(_modules, sample) if watched else None,
                decoder=decoder,
                layout=layout,
                vision=partial(_vision, sample, number, at),
                question=_nobody if number is None else partial(self.question, number),
                seed=_nobody if number is None else partial(self.seed, number, rows.prompt.part),
            ),
        )


def is_vectorized(method: PruningMethod) -> bool:
    """Whether the method's own class says so: a subclass may do more than choose, so it must say so anew."""
    if isinstance(method, Composed):
        return is_vectorized(method.first) and is_vectorized(method.then)
    return vars(type(method)).get("vectorized") is True


def _modules(sample: Sample, rows: Tensor) -> ModuleIO:
    return ModuleIO(**{name: whole[rows] for name, whole in sample.modules.items()})


def _vision(sample: Sample, number: int | None, at: Boundary) -> TowerView:
    if sample.tower is not None:
        return sample.tower
    if number is None or at.tower is None:
        raise RuntimeError("the vision tower is shown to methods that declare what they need of it")
    return at.tower(number)


def _nobody() -> Any:
    raise Apart("what samples have of their own")
