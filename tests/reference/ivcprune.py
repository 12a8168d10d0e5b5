"""IVC-Prune (arXiv:2602.03060): rows of extreme rotary coordinates, and those whose values are like the question's."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import Run, State, keep_visual, run_full_length, split_heads, top
from reference.options import NO_PAPER, PAPER, Answer, Changes, Refused, at, keeps
from reference.vision import start_state
from torch import Tensor

Rule = Literal["target", "llava"]


def ivc_prune(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundary: int,
    count: int | None = None,
    rule: Rule = "target",
    forget_from: int | None = None,
) -> Run:
    """Keep ``count`` visual tokens, or as many as the rule ``llava`` finds; earlier caches forget the others.

    The prompt is read with the caches whole, so that only generated rows notice. ``forget_from`` is the first layer
    that forgets, for tests; the rules have 0 and 1.
    """
    first = {"target": 0, "llava": 1}[rule] if forget_from is None else forget_from
    start = start_state(model, inputs)
    edits = {boundary: partial(_edit, model.model.language_model, boundary, count, rule)}
    # rows of the prompt do not depend on what comes after them: a first run finds the choice
    chosen = run_full_length(model, start, (), edits).rows[boundary]
    gone = set(start.rows) - set(chosen)
    return run_full_length(model, start, generated, edits, forgotten={layer: gone for layer in range(first, boundary)})


def _edit(
    decoder: Any, boundary: int, count: int | None, rule: Rule, state: State, entered: State | None, record: Run
) -> State:
    if entered is None:
        raise ValueError("boundary is 0, IVC-Prune needs an executed layer: 1 or more")
    visual = entered.visual
    if rule == "target" and (count is None or count >= len(visual)):
        return keep_visual(state, state.visual, record)
    columns = list(range(len(entered.rows))) if rule == "llava" else visual
    table = value_likeness(decoder, boundary - 1, entered, columns)[:, [columns.index(place) for place in visual]]
    question = question_rows(entered)
    cosine, sine = coordinates(decoder, [entered.positions[place] for place in visual])
    seeds = top(seed_count(len(visual), count), table[question].mean(dim=0))
    refined = table[[*question, *(visual[index] for index in seeds)]].mean(dim=0)
    record.scores.append(refined)
    if rule == "target" and count is not None:
        kept = target_rule(seeds, refined, cosine, sine, count)
    else:
        kept = llava_rule(seeds, refined, cosine, sine)
    return keep_visual(state, [visual[index] for index in kept], record)


def value_likeness(decoder: Any, layer_number: int, entered: State, columns: Sequence[int]) -> Tensor:
    """(rows, columns): softmax of products of values over the columns, mean over heads; nothing is hidden."""
    layer = decoder.layers[layer_number]
    values = split_heads(decoder, layer.self_attn.v_proj(layer.input_layernorm(entered.hidden)).double())
    tables = [torch.softmax(value @ value[list(columns)].T / value.shape[1] ** 0.5, dim=1) for value in values]
    return torch.stack(tables).mean(dim=0)


def question_rows(entered: State) -> list[int]:
    """Places from the second row after the image on, counted from zero; the last row if there are none."""
    return entered.question[2:] or [entered.last]


def coordinates(decoder: Any, positions: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mean over the head of the cosines and of the sines by which rotary embedding turns each position."""
    size = split_heads(decoder, torch.zeros(1, decoder.layers[0].self_attn.q_proj.out_features))[0].shape[1]
    base = decoder.config.rope_parameters["rope_theta"]
    # every frequency turns two channels, so the mean over half of them is the mean over all
    frequency = torch.tensor([1.0 / base ** (2 * i / size) for i in range(size // 2)], dtype=torch.float32)
    angle = torch.tensor(list(positions), dtype=torch.float32)[:, None] * frequency[None, :]
    return angle.cos().mean(dim=1), angle.sin().mean(dim=1)


def seed_count(tokens: int, count: int | None) -> int:
    """Tokens that the question alone chooses: a share of the count, or of all where there is none."""
    return max(1, round(0.01 * tokens) if count is None else round(0.036 * count))


def target_rule(seeds: Sequence[int], refined: Tensor, cosine: Tensor, sine: Tensor, count: int) -> list[int]:
    """Seeds and extreme coordinates, then the best others up to the count."""
    each = round(0.175 * count)
    first = {*seeds, *top(each, cosine), *top(each, sine)}
    others = [index for index in top(len(refined), refined) if index not in first]
    return sorted([*first, *others[: max(count - len(first), 0)]])


def llava_rule(seeds: Sequence[int], refined: Tensor, cosine: Tensor, sine: Tensor) -> list[int]:
    """The union of seeds, best rows and extreme coordinates."""
    tokens = len(refined)
    each = round(0.05 * tokens)
    return sorted({*seeds, *top(round(0.2 * tokens), refined), *top(each, cosine), *top(each, sine)})


def as_llava(without: Answer, given: Answer) -> bool:
    """In the middle of the decoder, at most 1 + 29 + 7 + 7 of 144 rows and at least 29."""
    return given.boundaries == [8] and 29 <= len(given.kept[0]) <= 44 and given.rows[8:] == [len(given.kept[0])] * 8


ORACLES = (
    MethodOracle(
        method="ivcprune",
        cases={
            "target": Case({"layers": (2,), "counts": (50,)}, partial(ivc_prune, boundary=2, count=50)),
            "target-few": Case({"layers": (5,), "counts": (9,)}, partial(ivc_prune, boundary=5, count=9)),
            # no budget but what it keeps
            "llava": Case({"layers": (6,), "rule": "llava"}, partial(ivc_prune, boundary=6, rule="llava")),
            "llava-early": Case({"layers": (1,), "rule": "llava"}, partial(ivc_prune, boundary=1, rule="llava")),
        },
        options={
            "layers": Changes((5,), at(5)),
            "counts": Changes((30,), keeps(30)),
            "schedule": Refused("paper", f"{PAPER}|{NO_PAPER}"),
            "rule": Changes("llava", as_llava, budget=0.642),
        },
        forgets_from=0,
    ),
)
