"""The signals of one sample at one boundary, bound to the engine's state; the other half of `contract.Signals`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.tower import TowerView
from swiftvlm_eval.pruning.contract import PruningMethod, Signals
from swiftvlm_eval.pruning.layer_attention import LayerAttention
from swiftvlm_eval.pruning.modules import ModuleIO
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
        before: [n, hidden_size], the rows one layer earlier; None at boundary 0, or where no stage reads them.
        scorer: attention of the scoring layer; None where the stage declares none.
        keys: [kv_heads, n, head_dim], rotated keys of the layer that has just run; None at boundary 0.
        module_io: the rows of the modules of that layer; None unless they are captured.
        layout: the sample's layout.
        vision: the tower's view.
        question: the user's question; None where nobody gave it.
        seed: of this sample.
    """

    rows: SampleRows
    before: Tensor | None
    scorer: LayerAttention | None
    keys: Tensor | None
    module_io: Callable[[], ModuleIO] | None
    layout: Callable[[], VisualLayout]
    vision: Callable[[], TowerView]
    question: str | None
    seed: Callable[[], int]


@dataclass
class SampleSignals(Signals):
    """See `Signals`."""

    sources: Sources

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
        rows, asking = self.sources.rows, None
        if visual_queries is not None:
            asking = rows.visual[visual_queries]
        elif queries is not None:
            asking = rows.text[queries]
        if candidates is not None and index is not None:
            return self._scorer.to_candidates(candidates, index, rope, scope)
        return self._scorer.to_visual(asking, rope, scope)

    def rope_similarity(self, queries: Tensor) -> Tensor:
        """See `Signals.rope_similarity`."""
        return self._scorer.rope_similarity(self.sources.rows.text[queries])

    @property
    def asked(self) -> int:
        """Rows whose attention was read so far, for the count of what the selection costs."""
        return 0 if self.sources.scorer is None else self.sources.scorer.asked

    @property
    def _scorer(self) -> LayerAttention:
        if self.sources.scorer is None:
            raise RuntimeError(f"the stage at boundary {self.stage.boundary} declares no scoring layer")
        return self.sources.scorer

    @property
    def previous_states(self) -> Tensor:
        """See `Signals.previous_states`."""
        return self._of_layer_before(self.sources.before)[self.sources.rows.visual]

    @property
    def layer_keys(self) -> Tensor:
        """See `Signals.layer_keys`."""
        return self._of_layer_before(self.sources.keys)[:, self.sources.rows.visual]

    @property
    def module_io(self) -> ModuleIO:
        """See `Signals.module_io`."""
        if self.sources.module_io is None:
            raise RuntimeError(f"no modules watched before boundary {self.stage.boundary}: declare the need module_io")
        return self.sources.module_io()

    def _of_layer_before(self, rows: Tensor | None) -> Tensor:
        if rows is None:
            raise RuntimeError("no layer has run before boundary 0")
        return rows

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
        if self.sources.question is None:
            raise ValueError("question_text: nobody gave the questions; set `session.questions` before the prefill")
        return self.sources.question

    @cached_property
    def generator(self) -> torch.Generator:
        """See `Signals.generator`."""
        return torch.Generator().manual_seed(self.sources.seed())
