"""What is left of the visual tokens between two edits, read off a trace."""

from dataclasses import dataclass

from swiftvlm_eval.pruning.trace import SampleTrace


@dataclass(frozen=True)
class Moment:
    """The visual rows of one sample after an edit, or of a sample that no edit touched.

    Attributes:
        boundary: decoder layers that had run.
        until: decoder layers that have run when the next edit comes, or all.
        num_visual: N, visual tokens of the prompt.
        kept: visual indices of the rows that are one token each, ascending.
        returned: of these, the ones that the rows before this edit did not have.
        others: rows that stand for no single token: merged ones, and patches that the decoder's input left out.
    """

    boundary: int
    until: int
    num_visual: int
    kept: tuple[int, ...]
    returned: tuple[int, ...]
    others: int

    @property
    def place(self) -> str:
        """For people: `after layer 3`."""
        return f"after layer {self.boundary}" if self.boundary else "before layer 1"

    @property
    def layers(self) -> str:
        """For people, the layers that see these rows: `layers 4 to 10`."""
        first = self.boundary + 1
        return f"layer {first}" if self.until == first else f"layers {first} to {self.until}"


def moments(trace: SampleTrace) -> list[Moment]:
    """One moment for every executed edit; of a sample that was not edited, one with all its tokens.

    Raises:
        ValueError: the sample has no visual tokens, or its prefill did not run to the end.
    """
    total, num_layers = trace.num_visual, trace.plan.num_layers
    if total == 0:
        raise ValueError("no visual tokens: the prompt has no image, so there is nothing to picture")
    if len(trace.rows_per_layer) != num_layers:
        raise ValueError(f"a prefill of {len(trace.rows_per_layer)} of {num_layers} layers: it did not run to the end")
    if not trace.stages:
        return [Moment(0, num_layers, total, tuple(range(total)), (), 0)]
    found: list[Moment] = []
    before = set(range(total))
    ends = [stage.boundary for stage in trace.stages[1:]] + [num_layers]
    for stage, until in zip(trace.stages, ends, strict=True):
        kept = sorted(stage.kept_indices)
        others = len(stage.index) - len(kept)
        found.append(Moment(stage.boundary, until, total, tuple(kept), tuple(sorted(set(kept) - before)), others))
        before = set(kept)
    return found
