"""V2Drop (arXiv 2509.01552): drop the rows that the layers hardly change any more.

At each of three boundaries a row's score is the length of the update that the layer just run made to it: the Euclidean
norm of its state after that layer minus its state before it, both among the rows that were alive there. No attention
is read. The rows with the largest updates stay. Positions are kept; nothing is merged.

Decisions. The published drop rates (50/70/100, 72/75/100 and 95/95/100 percent of what is there) leave 288/86/1,
161/40/1 and 28/1/1 of 576 rows, whose means are 193.8, 131.0 and 66.7: `schedule=paper`. Exact budgets lie on the
line through these three. Dropping everything leaves one row, as in the authors' code; where the image is, is read off
the prompt, never off the length of the sequence.
"""

from dataclasses import dataclass
from typing import ClassVar

from swiftvlm_eval.pruning.budget import Curve, kept_shares, through_presets
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.scores import top_k
from swiftvlm_eval.pruning.work import PromptWork, Work


@dataclass(frozen=True, kw_only=True)
class V2Drop(PruningMethod):
    """V2Drop; it has no options of its own."""

    name: ClassVar[str] = "v2drop"
    title: ClassVar[str] = "V2Drop"
    source: ClassVar[str] = "arXiv 2509.01552"
    summary: ClassVar[str] = "three stages by how much the layer just run changed each row"
    vectorized: ClassVar[bool] = True
    code: ClassVar[str] = "xuyang-liu16/V2Drop, licence unknown"
    looks_back: ClassVar[bool] = True
    default_layers: ClassVar[tuple[int, ...]] = (3, 17, 22)
    paper_presets: ClassVar = {
        64 / 576: kept_shares(28, 1, 1),
        128 / 576: kept_shares(161, 40, 1),
        192 / 576: kept_shares(288, 86, 1),
    }

    def schedule_curve(self, budget: float) -> Curve:
        """The line through the published counts."""
        return through_presets(self.paper_presets)

    def select(self, signals: Signals) -> RowEdit:
        """Keeps the `stage.kept` rows with the largest updates."""
        update = signals.states.float() - signals.layer_run().states.float()
        return signals.keep(top_k(update.norm(dim=1), signals.stage.kept))

    def work(self, prompt: PromptWork) -> Work:
        """None: an update is one subtraction a row."""
        return Work()
