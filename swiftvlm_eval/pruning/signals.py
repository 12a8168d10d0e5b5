"""The signals of one sample at one boundary, bound to the engine's state; the other half of `contract.Signals`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import DecoderPart, FamilyAdapter
from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.tower import TowerView
from swiftvlm_eval.pruning.arrangement import Apart, Run
from swiftvlm_eval.pruning.contract import PruningMethod, Signals
from swiftvlm_eval.pruning.layer_attention import LayerAttention
from swiftvlm_eval.pruning.layer_rows import LayerRows, ModuleIO
from swiftvlm_eval.pruning.rows import SampleRows
from swiftvlm_eval.pruning.words import Scope


class UnsupportedNeedError(ValueError):
    """A method needs a signal that the model's family does not have."""


def check_needs(method: PruningMethod, adapter: FamilyAdapter) -> None:
    """Refuses a method that would ask for what is not there.

    Raises:
        UnsupportedNeedError: names what is missing and what there is.
    """
    missing = sorted(method.needs - adapter.offers)
    if missing:
        raise UnsupportedNeedError(
            f"{method.name} needs {', '.join(missing)}, which {adapter.family} does not have; "
            f"it offers {', '.join(sorted(adapter.offers))}"
        )


@dataclass
class Sources:
    """Where the signals of one sample come from; what is costly is a function, called when it is asked for.

    Attributes:
        rows: the sample's live rows.
        sequence: [n, hidden_size], these rows themselves.
        before: [n, hidden_size], the rows one layer earlier; None at boundary 0, or where no stage reads them.
        scorer: attention of the scoring layer; None where the stage declares none.
        cached: rotated keys and values of the layer that has just run, [kv_heads, n, head_dim] each; None at
            boundary 0.
        module_io: reads given rows of the modules of that layer; None unless they are captured.
        layout: the sample's layout.
        vision: the tower's view.
        question: gives the user's question; None where nobody gave it.
        decoder: gives rotations and the final norm.
        seed: gives that of this sample.
    """

    rows: SampleRows
    sequence: Tensor
    before: Tensor | None
    scorer: LayerAttention | None
    cached: tuple[Tensor, Tensor] | None
    module_io: Callable[[Tensor], ModuleIO] | None
    decoder: DecoderPart
    layout: Callable[[], VisualLayout]
    vision: Callable[[], TowerView]
    question: Callable[[], str | None]
    seed: Callable[[], int]


@dataclass
class SampleSignals(Signals):
    """See `Signals`."""

    sources: Sources

    @property  # type: ignore[misc]
    def text_states(self) -> Tensor:  # type: ignore[override,misc]
        """See `Signals`; taken from the sequence when it is asked for."""
        return self.sources.rows.arrangement.text_of(self.sources.sequence)

    @text_states.setter
    def text_states(self, given: Tensor) -> None:
        """The field of `Signals`, which `sources` stand for."""

    def attention(
        self,
        *,
        queries: Tensor | None = None,
        visual_queries: Tensor | None = None,
        candidates: Tensor | None = None,
        index: Tensor | None = None,
        rope: bool = True,
        scope: Scope = "all",
    ) -> Tensor:
        """See `Signals.attention`."""
        asking = self._asking(queries)
        if visual_queries is not None:
            asking = self.sources.rows.visual[visual_queries]
        if candidates is not None:
            return self._scorer.to_candidates(candidates, index, rope, scope)
        return self._scorer.to_visual(asking, rope, scope)

    def rope_similarity(self, queries: Tensor) -> Tensor:
        """See `Signals.rope_similarity`."""
        return self._scorer.rope_similarity(self._asking(queries))

    @cached_property
    def question_rows(self) -> Tensor:  # type: ignore[override]
        """See `Signals.question_rows`."""
        count = self.sources.rows.arrangement.num_text
        return self.sources.rows.prompt.numbers[count - self.num_question : count]

    def _asking(self, queries: Tensor | None) -> Tensor | int:
        """Text rows as rows of the sequence; those at its end as how many these are. None is the last one."""
        ends = isinstance(self.sources.rows.arrangement, Run)
        if queries is None:
            return 1 if ends else self.sources.rows.text[-1:]
        if ends and queries is self.__dict__.get("question_rows"):
            return self.num_question
        return self.sources.rows.text[queries]

    @property
    def _scorer(self) -> LayerAttention:
        if self.sources.scorer is None:
            raise RuntimeError(f"the stage at boundary {self.stage.boundary} declares no scoring layer")
        return self.sources.scorer

    def layer_run(self, rows: Literal["visual", "text"] = "visual") -> LayerRows:
        """See `Signals.layer_run`."""
        before, cached = self.sources.before, self.sources.cached
        if before is None or cached is None:
            raise RuntimeError("no layer has run before boundary 0")
        parts = self.sources.rows.arrangement
        return LayerRows(parts.visual if rows == "visual" else parts.text, before, cached, self.sources.module_io)

    @property
    def rotation(self) -> tuple[Tensor, Tensor]:
        """See `Signals.rotation`."""
        rows = self.sources.rows
        like = torch.empty(0, device=self.states.device)
        cos, sin = self.sources.decoder.rotary(like, rows.position_ids[:, None, rows.visual])
        return cos[0], sin[0]

    def final_norm(self, states: Tensor) -> Tensor:
        """See `Signals.final_norm`."""
        return self.sources.decoder.final_norm(states)

    @cached_property
    def layout(self) -> VisualLayout:
        """See `Signals.layout`."""
        self._refuse_later_parts("layout")
        return self.sources.layout()

    @cached_property
    def vision(self) -> TowerView:
        """See `Signals.vision`."""
        self._refuse_later_parts("vision")
        return self.sources.vision()

    def _refuse_later_parts(self, word: str) -> None:
        if self.sources.rows.prompt.part:
            raise ValueError(
                f"{word}: it tells of the image's own tokens, and this method sees the rows that another one left; "
                "allowed first, or alone"
            )

    @property
    def question_text(self) -> str:
        """See `Signals.question_text`."""
        question = self.sources.question()
        if question is None:
            raise ValueError("question_text: nobody gave the questions; set `session.questions` before the prefill")
        return question

    @cached_property
    def generator(self) -> torch.Generator:
        """See `Signals.generator`."""
        return torch.Generator().manual_seed(self.sources.seed())


@dataclass
class PaddedSignals(SampleSignals):
    """Those of samples that differ in how much text they have, shown in one go."""

    @property  # type: ignore[misc]
    def num_question(self) -> int:  # type: ignore[override]
        """Differs from sample to sample."""
        raise Apart("num_question")

    @num_question.setter
    def num_question(self, given: int) -> None:
        """The field of `Signals`."""
