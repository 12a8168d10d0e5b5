"""Looking on: the unpruned model layer by layer, and what a method reads and computes at its stages."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.words import ScoreLayer
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass
class Unpruned:
    """What the unpruned model showed of one sample.

    Attributes:
        scores: boundary b -> float32, [N]: attention of the last prompt token to the visual tokens in the layer that
            runs next, softmax over the visual tokens alone, mean over heads.
        states: boundary b -> [N, hidden_size], the visual tokens at that layer's input.
    """

    scores: dict[int, Tensor] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Watcher(PruningMethod):
    """Keeps every row and notes what it sees; one sample a prefill.

    Attributes:
        at: boundaries at which it looks.
        seen: what it saw in the last prefill.
        with_states: whether states are noted beside scores.
    """

    name: ClassVar[str] = "unpruned"
    title: ClassVar[str] = "unpruned"
    source: ClassVar[str] = "baseline"
    summary: ClassVar[str] = "keeps everything and looks on"
    scored_by: ClassVar[ScoreLayer] = "next"

    at: tuple[int, ...]
    seen: Unpruned = field(default_factory=Unpruned, compare=False)
    with_states: bool = False

    def plan(self, num_visual: int, num_layers: int, budget: float | None = None) -> Plan:
        """A stage at every boundary, which keeps all."""
        stages = tuple(Stage(boundary, num_visual, scored_by="next") for boundary in self.at)
        return Plan(num_visual, num_layers, stages)

    def select(self, signals: Signals) -> RowEdit:
        """Notes scores, and states if asked for."""
        boundary = signals.stage.boundary
        self.seen.scores[boundary] = signals.attention(scope="visual").mean(dim=0)[0]
        if self.with_states:
            self.seen.states[boundary] = signals.states.clone()
        return signals.keep_all()

    def work(self, prompt: PromptWork) -> Work:
        """Not counted: nothing is pruned."""
        return Work()


@dataclass(frozen=True)
class Look:
    """One stage of a watched method.

    Attributes:
        stage: which.
        carry: what the method's previous stage left.
        candidates: [C, hidden_size], rows it made to be scored in place of the live ones; None if it scored these.
        index: int64, [C], their visual indices.
        edit: what it chose.
    """

    stage: Stage
    carry: Any
    candidates: Tensor | None
    index: Tensor | None
    edit: RowEdit


class _Tap:
    """Signals that note which candidates a method gives to be scored; no name of theirs may be taken here."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self.noted: tuple[Tensor, Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signals, name)

    def attention(self, **arguments: Any) -> Tensor:
        """See `Signals.attention`."""
        if arguments.get("candidates") is not None:
            index = arguments.get("index")
            whole = torch.arange(self._signals.num_visual, device=self._signals.states.device)
            self.noted = arguments["candidates"], whole if index is None else index
        return self._signals.attention(**arguments)


def watched(method: PruningMethod, note: Callable[[Look], None]) -> PruningMethod:
    """The same method, whose stages are noted as they are executed; nothing it does changes.

    Args:
        method: any method.
        note: is called after each stage of each sample.
    """
    base = type(method)

    def select(self: PruningMethod, signals: Signals) -> RowEdit:
        tap = _Tap(signals)
        edit: RowEdit = base.select(self, cast(Signals, tap))
        candidates, index = tap.noted or (None, None)
        note(Look(signals.stage, signals.carry, candidates, index, edit))
        return edit

    cls = type(base.__name__, (base,), {"select": select, "__module__": base.__module__, "__doc__": base.__doc__})
    values = {option.name: getattr(method, option.name) for option in fields(method)}
    return cast(PruningMethod, cls(**values))
