"""What a selection computes, in rows and pairs of rows: declared by the methods, priced by `efficiency.selection`.

Only what a matrix product or a distance matrix does is declared. Left out, because it is smaller by the width of a row
or more: softmax, norms, rotations, means over heads, sorting, gathering, and the singular values of SparseVLM 1.0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import add

from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.pruning.merging import recycled_counts
from swiftvlm_eval.pruning.schedule import Stage
from swiftvlm_eval.pruning.words import Scope

COMPARED_CHANNELS = 256
"""Of `Work.channel_similarity`; all of a narrower decoder."""


@dataclass(frozen=True)
class Work:
    """Amounts of work of a selection; they add up.

    Attributes:
        queries: decoder rows projected to queries.
        keys: decoder rows projected to keys.
        attention: (text row, key) pairs whose attention logit is computed, over all heads.
        position_similarity: (text row, visual row) pairs of `Signals.rope_similarity`, of one head.
        rating: (text row, visual row) attention entries averaged over raters, or multiplied for their rank.
        similarity: pairs of decoder rows compared by an inner product.
        value_similarity: pairs of decoder rows compared by their values of all heads.
        channel_similarity: pairs of decoder rows compared in `COMPARED_CHANNELS` of their channels.
        distance: pairs of decoder rows whose Euclidean distance is computed.
        averaging: (group, row) products of group means of decoder rows.
        volume: (earlier pick, row) products of `selection.greedy_volume`.
        projection: vision features sent through the projector.
        tower_queries: tower rows projected to queries.
        tower_keys: tower rows projected to keys.
        tower_attention: (query, key) pairs in the tower, over all heads.
        tower_similarity: pairs of patches compared by their keys, of one head.
        feature_similarity: pairs of patches compared by their features, or by their keys of all heads.
        tower_averaging: (group, patch) products of group means of vision features.
    """

    queries: int = 0
    keys: int = 0
    attention: int = 0
    position_similarity: int = 0
    rating: int = 0
    similarity: int = 0
    value_similarity: int = 0
    channel_similarity: int = 0
    distance: int = 0
    averaging: int = 0
    volume: int = 0
    projection: int = 0
    tower_queries: int = 0
    tower_keys: int = 0
    tower_attention: int = 0
    tower_similarity: int = 0
    feature_similarity: int = 0
    tower_averaging: int = 0

    def __add__(self, other: "Work") -> "Work":
        """Both, item by item."""
        return Work(*map(add, vars(self).values(), vars(other).values()))


@dataclass(frozen=True)
class StageWork:
    """One stage as it was executed, or as a plan expects it.

    Attributes:
        stage: the plan's stage.
        live: visual rows before the edit.
        kept: of these, the rows that stayed or came back.
        made: rows that this edit made of several.
    """

    stage: Stage
    live: int
    kept: int
    made: int


@dataclass(frozen=True)
class PromptWork:
    """One sample's prefill, as far as a selection's work depends on it.

    Attributes:
        num_visual: N.
        text: text rows.
        num_question: text rows after the last visual token.
        encoder_inputs: tiles that the vision tower encoded for the sample.
        patches: patches of one encoder input.
        stages: the edits, in order.
        entered: visual tokens of the decoder's input, where the stages begin with fewer.
        layout: where the visual tokens come from; None where a plan does not know.
    """

    num_visual: int
    text: int
    num_question: int
    encoder_inputs: int
    patches: int
    stages: tuple[StageWork, ...]
    entered: int | None = None
    layout: VisualLayout | None = None

    def over_stages(self, of_stage: Callable[[StageWork], Work]) -> Work:
        """The sum over all stages."""
        return sum((of_stage(stage) for stage in self.stages), Work())

    def attention(
        self,
        at: StageWork,
        *,
        queries: int = 1,
        candidates: int | None = None,
        rope: bool = True,
        scope: Scope = "all",
    ) -> Work:
        """What `Signals.attention` computes.

        Args:
            at: the stage.
            queries: text rows that ask.
            candidates: rows scored instead of the live visual ones.
            rope: rotated, so that a layer that has run has its keys in the cache.
            scope: keys under the softmax.
        """
        rows = (at.live if candidates is None else candidates) + (self.text if scope == "all" else 0)
        cached = at.stage.scored_by == "previous" and rope and candidates is None
        return Work(queries=queries, keys=0 if cached else rows, attention=queries * rows)

    @property
    def cls_attention(self) -> Work:
        """What `TowerView.cls_attention` computes: CLS asks, and the keys are projected anew."""
        rows = self.encoder_inputs * (1 + self.patches)
        return Work(tower_queries=self.encoder_inputs, tower_keys=rows, tower_attention=rows)

    @property
    def received_attention(self) -> Work:
        """What `TowerView.received_attention` computes: every row asks every row."""
        rows = self.encoder_inputs * (1 + self.patches)
        return Work(tower_queries=rows, tower_keys=rows, tower_attention=rows * (1 + self.patches))

    @property
    def feature_pairs(self) -> Work:
        """Every patch of a tile compared with every patch of that tile, by its features."""
        return Work(feature_similarity=self.encoder_inputs * self.patches**2)

    def projected_anew(self, rows: int) -> Work:
        """What the projector does again for rows that the decoder's input leaves out: none if it shows every patch."""
        return Work(projection=0 if self.num_visual == self.encoder_inputs * self.patches else rows)

    @property
    def raters(self) -> Work:
        """What `scores.rater_weights` computes."""
        entered = self.num_visual if self.entered is None else self.entered
        return Work(similarity=entered * self.num_question if self.stages else 0)

    def tower_merging(self, kept: int, targets: int, width: int | None = None) -> Work:
        """What VisionZip computes in the tower and the projector, its counts spread evenly over the encoder inputs.

        Args:
            kept: rows of the whole sample chosen by CLS attention, CLS rows among them; N keeps everything as it is.
            targets: rows of the whole sample into which the others are merged.
            width: patches that are looked at for each target, itself included; None for all that are left.
        """
        if kept >= self.num_visual:
            return Work()
        pairs = 0
        for tile in range(self.encoder_inputs):
            own, into = (n // self.encoder_inputs + (tile < n % self.encoder_inputs) for n in (kept, targets))
            left = 1 + self.patches - own
            pairs += into * ((left if width is None else min(width * into, left)) - into)
        merged = Work(tower_similarity=pairs, tower_averaging=pairs, projection=kept + targets)
        return self.cls_attention + merged


def grouping(rows: int, groups: int) -> Work:
    """What `merging.merge_by_anchors` computes: each row against each anchor, then the means."""
    return Work(similarity=rows * groups, averaging=rows * groups)


def recycling(pruned: int) -> Work:
    """What `merging.recycle` computes: distances among the candidates, then one mean per cluster."""
    candidates, clusters = recycled_counts(pruned)
    return Work(distance=candidates**2 if clusters > 1 else 0, averaging=candidates * clusters)
