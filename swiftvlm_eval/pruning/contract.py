"""The contract between a pruning method and the engine.

A method is a frozen dataclass of hyper-parameters. It declares as data where it acts, how many rows stay and what it
needs to see; it selects, from what one sample shows at one boundary, the new visual rows. It never sees the model, a
cache, a mask or another sample. What must survive between two stages travels in `RowEdit.carry`.

Boundary b means: b decoder layers have run; 0 is the decoder's input. *Tokens* are the N visual tokens of the prompt,
*rows* what a layer sees. A row has an *index* (0..N-1, its token; -1 if it stands for several) and a *place* in the
sequence; position ids are the engine's.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.tower import TowerView
from swiftvlm_eval.models.tower_rows import TowerPoint, TowerRows
from swiftvlm_eval.pruning.layer_rows import LayerRows
from swiftvlm_eval.pruning.outside import source_sha256
from swiftvlm_eval.pruning.schedule import Plan, Scheduled, Stage
from swiftvlm_eval.pruning.words import Need, Order, PositionRule, Scope

if TYPE_CHECKING:
    from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass
class Signals(ABC):
    """What one sample shows at one boundary. V visual rows are live, in sequence order; n_t text rows.

    The engine binds what is abstract here. A word of `PruningMethod.needs` stands beside what requires it.

    Attributes:
        stage: the stage that is due.
        num_visual: N, visual tokens of the prompt.
        states: [V, hidden_size], visual rows.
        index: int64, [V], original visual index of each row; -1 for a merged row.
        places: float32, [V], where each row stands in the sequence; under the rule `keep` its place in the prompt.
        text_states: [n_t, hidden_size], text rows in sequence order; the last one ends the prompt.
        num_question: number of text rows after the last visual token.
        carry: what the method's previous stage left in its RowEdit.
    """

    stage: Stage
    num_visual: int
    states: Tensor
    index: Tensor
    places: Tensor
    text_states: Tensor
    num_question: int
    carry: Any

    @abstractmethod
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
        """Attention of rows to visual rows in the scoring layer, causal, softmax in float32.

        Args:
            queries: int64, indices of text rows; default the last prompt token.
            visual_queries: int64, row numbers among the V live visual rows, in place of text rows.
            candidates: [C, hidden_size] rows to score instead of the live visual rows, for the last prompt token
                (next-layer stages only).
            index: int64, [C], their visual indices, by which their position ids are looked up; None for 0..N-1.
            rope: rotate queries and keys.
            scope: keys under the softmax.

        Returns:
            float32, [heads, num_queries, V or C].
        """

    @abstractmethod
    def rope_similarity(self, queries: Tensor) -> Tensor:
        """What rotary attention gives to queries and keys of ones: the pull of position alone, float32 [q, V].

        Args:
            queries: int64, [q], indices of text rows. The products are scaled by 1 / sqrt(head_dim).
        """

    @abstractmethod
    def layer_run(self, rows: Literal["visual", "text"] = "visual") -> LayerRows:
        """What the layer that has just run took and made of the live visual or the text rows; not at boundary 0."""

    @property
    @abstractmethod
    def rotation(self) -> tuple[Tensor, Tensor]:
        """Cosine and sine by which the rotary embedding turns each live visual row, [V, head_dim] each."""

    @abstractmethod
    def final_norm(self, states: Tensor) -> Tensor:
        """[n, hidden_size] rows under the norm that stands before the language model's head."""

    @property
    @abstractmethod
    def layout(self) -> VisualLayout:
        """Where each of the N tokens comes from; its tensors are on the CPU."""

    @property
    @abstractmethod
    def vision(self) -> TowerView:
        """The vision tower's view. Needs: `cls_attention`, `patch_features`, `tower_states`, `pixels`, ..."""

    @property
    @abstractmethod
    def question_text(self) -> str:
        """The user's question as a string, placeholders left out. Need: `question_text`."""

    @property
    @abstractmethod
    def generator(self) -> torch.Generator:
        """A CPU generator, seeded by the run's seed and the sample: the same draw on every device, rank and batch."""

    @property
    def question_rows(self) -> Tensor:
        """int64, [num_question]: which text rows stand after the last visual token."""
        count = len(self.text_states)
        return torch.arange(count - self.num_question, count, device=self.states.device)

    def keep(self, kept: Tensor, carry: Any = None, appended: Tensor | None = None) -> "RowEdit":
        """The edit that keeps some of the live visual rows and drops the others.

        Args:
            kept: int64, row numbers among the V live rows; they stay in sequence order.
            carry: see `RowEdit`.
            appended: [C, hidden_size], rows that stand for several tokens, to follow the last visual row.
        """
        kept = (kept.nonzero()[:, 0] if kept.dtype == torch.bool else kept).sort().values
        edit = RowEdit(self.states[kept], self.index[kept], self.places[kept], carry)
        if appended is not None:
            edit = edit.with_merged_rows(appended, (self.places[-1:] + 0.5).expand(len(appended)), carry)
        return edit.sure("ascending", whole=appended is None)

    def keep_all(self, carry: Any = None) -> "RowEdit":
        """The edit that changes nothing."""
        return RowEdit(self.states, self.index, self.places, carry).sure("ascending", True)


@dataclass(frozen=True)
class RowEdit:
    """The visual rows from here on. Text rows are never edited.

    Rows are ordered in the sequence by `places` (stable among equals). Under the rule `keep` a row's position ids are
    those of its token in the prompt, and a merged row takes those of its place; `compact` renumbers the sequence.

    Attributes:
        states: [V', hidden_size].
        index: int64, [V'], original visual index; -1 for a row that stands for several tokens.
        places: float, [V'].
        carry: handed to the method's next stage, then forgotten.
        made: how many of the rows this edit made of several.
        evict_from: the first decoder layer that has run whose cache also forgets what this edit drops; None for none.
        order, whole: what `sure` says of the places; `dataclasses.replace` forgets it.
    """

    states: Tensor
    index: Tensor
    places: Tensor
    carry: Any = None
    made: int = 0
    evict_from: int | None = None
    order: Order = field(default="any", init=False)
    whole: bool = field(default=False, init=False)

    def sure(self, order: Order, whole: bool) -> "RowEdit":
        """This edit, whose places are sure to be so ordered (see `words.Order`), and whole: less is computed."""
        vars(self).update(order=order, whole=whole)
        return self

    def with_merged_rows(self, states: Tensor, places: Tensor, carry: Any) -> "RowEdit":
        """This edit with further rows, [C, hidden_size] at places [C], that stand for several tokens each."""
        index = torch.nn.functional.pad(self.index, (0, len(states)), value=-1)
        joined = torch.cat([self.states, states]), index, torch.cat([self.places, places])
        return RowEdit(*joined, carry, self.made + len(states))


@dataclass(frozen=True, kw_only=True)
class PruningMethod(Scheduled, ABC):
    """Base of all methods; its schedule is declared as `Scheduled` says.

    Attributes:
        name: registered name, that of the file.
        title, source: as the paper writes it; arXiv id, or `baseline`.
        code: the authors' repository and its licence.
        summary: one line for tables.
        caveat: what a reader of its numbers must know; boards show it.
        position_rule: `keep` or `compact`.
        needs: words for what it sees beyond rows, attention and layout; a family that lacks one is refused.
        draws: whether its choice depends on `Signals.generator`.
        vectorized: `select` and `prepare` run under `torch.vmap`, too: no side effects, and no tensor is read by the
            host. Each class says so for itself; a subclass does not inherit it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]
    code: ClassVar[str] = "none known"
    caveat: ClassVar[str] = ""
    position_rule: ClassVar[PositionRule] = "keep"
    needs: ClassVar[frozenset[Need]] = frozenset()
    draws: ClassVar[bool] = False
    vectorized: ClassVar[bool] = False

    @abstractmethod
    def select(self, signals: Signals) -> RowEdit:
        """Chooses the visual rows of one sample at `signals.stage`."""

    @abstractmethod
    def work(self, prompt: "PromptWork") -> "Work":
        """What `prepare` and `select` compute for one sample, in rows and pairs of rows."""

    def prepare(self, signals: Signals) -> Any:
        """What it reads off the decoder's input, if it needs `decoder_input`: the first stage's carry."""
        raise NotImplementedError(f"{self.name} does not read the decoder's input")

    def resize_images(self, pixels: Tensor, side: int, budget: float | None) -> Tensor:
        """The encoder's input in place of `pixels`, [T, 3, S, S], normalised, if the method needs `image_resizing`.

        Args:
            pixels: as above; returned as [T, 3, s, s] with s a multiple of the patch size S / side.
            side: patches along one side at size S.
            budget: share of N.
        """
        raise NotImplementedError(f"{self.name} does not resize images")

    def edit_tower(self, rows: TowerRows, point: TowerPoint, stage: Stage) -> TowerRows:
        """The rows of one encoder input from `point` on, if the method needs `tower_rows`; `rows` to change nothing.

        `Signals.vision.edited` has what came of them; `stage`, at boundary 0, puts them into the decoder.
        """
        raise NotImplementedError(f"{self.name} does not edit rows inside the tower")

    @property
    def source_sha256(self) -> str | None:
        """Of the source file of a method from outside this package; None for a registered one."""
        return source_sha256(type(self))

    def rule_at(self, stage: Stage) -> PositionRule:
        """The position rule of a stage; an option may override the class's."""
        return self.position_rule

    def overhead_flops(self, plan: Plan, hidden_size: int) -> dict[str, float]:
        """FLOPs of the selection as the method's paper counts them, item by item; what is executed is in `work`."""
        return {}

    def attributed_plan(self, plan: Plan) -> Plan | None:
        """The plan as the method's own code counts it, where that differs from what is executed."""
        return None
