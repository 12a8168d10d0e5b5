"""TransPrune (arXiv:2507.20630): how modules turn and scale a row, collected over layers, and text attention."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import (
    Edit,
    Row,
    Run,
    State,
    attention_output,
    attention_rows,
    keep_visual,
    run_full_length,
    top,
    visual_indices,
)
from reference.options import NO_PAPER, PAPER, Changes, Refused, at, keeps
from reference.vision import start_state
from torch import Tensor

DROPS = (0, 2, 5)
"""Which of the six boundaries drop rows; the others only collect."""


def transprune(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: Sequence[int],
    counts: Sequence[int],
) -> Run:
    """Collect transitions at six boundaries and keep ``counts`` visual tokens from the first, third and sixth on.

    ``scores`` holds the scores of the three drops; there is an entry of ``kept_indices`` for every boundary.
    """
    decoder = model.model.language_model
    collected: dict[Row, float] = {}

    def stage(number: int, boundary: int) -> Edit:
        def edit(state: State, entered: State | None, record: Run) -> State:
            if entered is None:
                raise ValueError("boundary is 0, TransPrune needs an executed layer: 1 or more")
            seen = transitions(decoder, decoder.layers[boundary - 1], entered).tolist()
            for place in entered.visual:
                row = entered.rows[place]
                collected[row] = collected.get(row, 0.0) + seen[place]
            if number not in DROPS:
                record.kept_indices.append(visual_indices(state))
                return state
            sums = torch.tensor([collected[state.rows[place]] for place in state.visual], dtype=torch.float64)
            scores = share(sums) + share(guidance(decoder, boundary, state))
            record.scores.append(scores)
            best = top(counts[DROPS.index(number)], scores)
            return keep_visual(state, [state.visual[index] for index in best], record).reindexed()

        return edit

    edits = {boundary: stage(number, boundary) for number, boundary in enumerate(boundaries)}
    return run_full_length(model, start_state(model, inputs), generated, edits)


def transition(taken: Tensor, given: Tensor) -> Tensor:
    """One module: gain in length, times the share of the whole sequence that a row has in exp(1 - cosine)."""
    taken, given = taken.double(), given.double()
    gain = given.norm(dim=1) / taken.norm(dim=1)
    turned = torch.exp(1 - (taken * given).sum(dim=1) / (taken.norm(dim=1) * given.norm(dim=1)))
    return gain * turned / turned.sum()


def transitions(decoder: Any, layer: Any, entered: State) -> Tensor:
    """Sum over the attention and the MLP of a layer, for every row that entered it, text rows included."""
    normed = layer.input_layernorm(entered.hidden)
    attended = attention_output(decoder, layer, normed, entered.positions)
    between = layer.post_attention_layernorm(entered.hidden + attended)
    return transition(normed, attended) + transition(between, layer.mlp(between))


def guidance(decoder: Any, layer: int, state: State) -> Tensor:
    """Attention that the text after the image gives to the visual rows in the layer about to run."""
    attention = attention_rows(decoder, layer, state, state.question, list(range(len(state.rows))))
    return attention[:, :, state.visual].double().mean(dim=0).mean(dim=0)


def share(values: Tensor) -> Tensor:
    """Of their sum."""
    return values / (values.sum() + 1e-8)


SIX = (2, 4, 6, 8, 10, 12)
ORACLES = (
    MethodOracle(
        method="transprune",
        score_layers={3: 3, 4: None, 6: 6, 7: None, 8: None, 10: 10},
        cases={
            "one-after-the-other": Case(
                {"layers": (4, 5, 6, 7, 8, 9), "counts": (100, 60, 20)},
                partial(transprune, boundaries=(4, 5, 6, 7, 8, 9), counts=(100, 60, 20)),
            ),
            "apart": Case(
                {"layers": SIX, "counts": (70, 40, 5)}, partial(transprune, boundaries=SIX, counts=(70, 40, 5))
            ),
            "late-drop": Case(
                {"layers": (1, 2, 3, 5, 9, 11), "counts": (140, 140, 30)},
                partial(transprune, boundaries=(1, 2, 3, 5, 9, 11), counts=(140, 140, 30)),
            ),
        },
        options={
            "layers": Changes(SIX, at(*SIX)),
            "counts": Changes((70, 40, 10), keeps(70, 70, 40, 40, 40, 10)),
            "schedule": Refused("paper", f"{PAPER}|{NO_PAPER}"),
        },
    ),
)
