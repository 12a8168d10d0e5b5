"""SparseVLM (arXiv:2410.04417): text raters, staged drops, and dropped tokens recycled into cluster means."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from reference.declared import Case, MethodOracle
from reference.full_length import (
    Edit,
    Merged,
    Row,
    Run,
    State,
    attention_rows,
    keep_visual,
    rotate,
    run_full_length,
    split_heads,
    top,
    visual_indices,
)
from reference.options import NO_PAPER, STAGED, THREE, Answer, Changes, Refused, at, keeps, same_counts
from reference.vision import start_state
from torch import Tensor


def sparsevlm(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: Sequence[int],
    counts: Sequence[int],
) -> Run:
    """Version 1.5: fixed counts per stage, recycling, compact positions."""

    def choose(number: int, matrix: Tensor) -> int | None:
        return min(counts[number], matrix.shape[1] - 1)

    return _with_recycling(model, inputs, generated, boundaries, choose)


def sparsevlm_rank_adaptive(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: Sequence[int],
    scale: float,
    bias: float,
) -> Run:
    """Version 1.0: the count at each stage follows the rank of the rater-to-visual attention matrix."""

    def choose(number: int, matrix: Tensor) -> int | None:
        rank = int(torch.linalg.matrix_rank(matrix))
        if rank == matrix.shape[1]:
            return None
        return min(int(rank * scale + bias), matrix.shape[1] - 1)

    return _with_recycling(model, inputs, generated, boundaries, choose)


def sparsevlm_plus(
    model: Any,
    inputs: Mapping[str, Tensor],
    generated: Sequence[int] = (),
    *,
    boundaries: Sequence[int],
    counts: Sequence[int],
    heads: int = 14,
) -> Run:
    """The + switch: probabilities divided by the rotary gravity, best heads only, no merging, positions kept."""
    decoder = model.model.language_model
    start = start_state(model, inputs)
    raters = text_raters(start)

    def stage(number: int) -> Edit:
        def edit(state: State, entered: State | None, record: Run) -> State:
            if entered is None:
                raise ValueError("boundary is 0, SparseVLM needs an executed layer: 1 or more")
            queries = _places_of(entered, raters)
            attention = attention_rows(
                decoder, boundaries[number] - 1, entered, queries, list(range(len(entered.rows)))
            )[:, :, entered.visual]
            attention = attention / gravity(decoder, entered, queries, entered.visual)
            best = top(min(heads, attention.shape[0]), attention.sum(dim=(1, 2)))
            scores = attention[best].mean(dim=0).mean(dim=0)
            record.scores.append(scores)
            kept = top(min(counts[number], len(scores)), scores)
            return keep_visual(state, [entered.visual[index] for index in kept], record)

        return edit

    edits = {boundary: stage(number) for number, boundary in enumerate(boundaries)}
    return run_full_length(model, start, generated, edits, Run(logits=torch.empty(0), raters=raters))


def text_raters(start: State) -> list[int]:
    """Prompt slots of the text after the image that is more alike to the image than average, from decoder inputs."""
    visual = start.hidden[start.visual].float()
    text = list(range(start.visual[-1] + 1, len(start.rows)))
    share = torch.softmax(visual @ start.hidden[text].float().T, dim=1).mean(dim=0)
    mean = share.mean()
    above = [start.rows[place].index for place, value in zip(text, share, strict=True) if value > mean]
    return above if above else [start.rows[place].index for place in text]


def gravity(decoder: Any, state: State, queries: Sequence[int], keys: Sequence[int]) -> Tensor:
    """What rotary attention gives to all-ones queries and keys at these places: (queries, keys)."""
    size = split_heads(decoder, torch.zeros(1, decoder.layers[0].self_attn.q_proj.out_features))[0].shape[1]
    query = rotate(decoder, torch.ones(len(queries), size), [state.positions[place] for place in queries])
    key = rotate(decoder, torch.ones(len(keys), size), [state.positions[place] for place in keys])
    products: Tensor = query @ key.T / size**0.5
    return products


def recycled_counts(dropped: int) -> tuple[int, int]:
    """How many dropped tokens become candidates, and into how many clusters those are merged."""
    candidates = int(0.3 * dropped) + 1
    return candidates, int(candidates / 10) + 1


def density_peak_clusters(vectors: Tensor, clusters: int) -> list[list[int]]:
    """Members of each cluster of (candidates, hidden size), clusters in the order of their centres' gamma."""
    points = vectors.float()
    size = len(points)
    if clusters == 1:
        return [list(range(size))]
    distance = torch.stack([(points - point).norm(dim=1) for point in points]) / points.shape[1] ** 0.5
    density = []
    for i in range(size):
        nearest = sorted(distance[i].tolist())[:clusters]
        density.append(torch.exp(-(torch.tensor(nearest) ** 2).mean()).item())
    gamma = []
    for i in range(size):
        denser = [j for j in range(size) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        delta = min(distance[i][j].item() for j in denser) if denser else distance.max().item()
        gamma.append(density[i] * delta)
    centres = top(clusters, torch.tensor(gamma))
    members: list[list[int]] = [[] for _ in centres]
    for i in range(size):
        if i in centres:
            members[centres.index(i)].append(i)
        else:
            to_centres = [distance[i][centre].item() for centre in centres]
            members[to_centres.index(min(to_centres))].append(i)
    return members


def _places_of(state: State, slots: Sequence[int]) -> list[int]:
    wanted = set(slots)
    return [place for place, row in enumerate(state.rows) if row.kind == "text" and row.index in wanted]


def _with_recycling(
    model: Any, inputs: Mapping[str, Tensor], generated: Sequence[int], boundaries: Sequence[int], choose: Any
) -> Run:
    decoder = model.model.language_model
    start = start_state(model, inputs)
    raters = text_raters(start)

    def stage(number: int) -> Edit:
        def edit(state: State, entered: State | None, record: Run) -> State:
            if entered is None:
                raise ValueError("boundary is 0, SparseVLM needs an executed layer: 1 or more")
            everything = list(range(len(entered.rows)))
            attention = attention_rows(
                decoder, boundaries[number] - 1, entered, _places_of(entered, raters), everything
            )
            matrix = attention.mean(dim=0)[:, entered.visual]
            scores = matrix.mean(dim=0)
            record.scores.append(scores)
            count = choose(number, matrix)
            new = state if count is None else recycle(state, scores, count, boundaries[number], record)
            record.kept_indices.append(visual_indices(new))
            return new

        return edit

    edits = {boundary: stage(number) for number, boundary in enumerate(boundaries)}
    return run_full_length(model, start, generated, edits, Run(logits=torch.empty(0), raters=raters))


def recycle(state: State, scores: Tensor, count: int, boundary: int, record: Run) -> State:
    """Keep the best ``count`` visual rows, append cluster means of the best dropped ones, number all rows anew."""
    order = top(len(scores), scores)
    candidate_count, cluster_count = recycled_counts(len(scores) - count)
    candidates = [state.visual[index] for index in order[count : count + candidate_count]]
    vectors = state.hidden[candidates]
    made = []
    for members in density_peak_clusters(vectors, cluster_count):
        vector = vectors[members].sum(dim=0) / (len(members) + 1e-6)
        parents = tuple(state.rows[candidates[member]] for member in members)
        made.append(Merged(boundary, tuple(r.index if r.kind == "visual" else r for r in parents), vector))
    kept = sorted(state.visual[index] for index in order[:count])
    before = [place for place in range(state.visual[0]) if state.rows[place].kind == "text"]
    after = list(range(state.visual[-1] + 1, len(state.rows)))
    record.merged.extend(made)
    labels = [Row("merged", 1000 * boundary + number) for number in range(len(made))]
    first, last = state.take([*before, *kept]), state.take(after)
    new = replace(
        state,
        rows=(*first.rows, *labels, *last.rows),
        hidden=torch.cat([first.hidden, torch.stack([merged.vector for merged in made]), last.hidden]),
    )
    return new.reindexed()


def recycled(rest: int, merged: int, options: Mapping[str, Any], last: bool) -> int:
    """Rows into which a stage that drops rows recycles the best 30 % of them."""
    return int((int(0.3 * rest) + 1) / 10) + 1 if rest else 0


def more_rows(without: Answer, given: Answer) -> bool:
    """As many edits, each with more rows left."""
    fewer = [a <= b for a, b in zip(without.rows, given.rows, strict=True)]
    return without.boundaries == given.boundaries and all(fewer) and without.rows[-1] < given.rows[-1]


SCORES = {3: 2, 6: 5, 9: 8}
COUNTS = {"layers": THREE, "counts": (80, 40, 25)}
FOUR = (2, 4, 6, 9)
SCALED = (("scale", 2.0),)
ORACLES = (
    MethodOracle(
        method="sparsevlm",
        score_layers=SCORES,
        cases={"counts": Case(COUNTS, partial(sparsevlm, boundaries=THREE, counts=(80, 40, 25)))},
        options={
            "layers": Changes(THREE, at(*THREE)),
            # of the 64, 43 and 17 rows that are dropped, 20, 13 and 6 are recycled into 3, 2 and 1
            "counts": Changes((80, 40, 25), lambda without, given: sorted({*given.rows}) == [26, 42, 83, 144]),
            # 300 of 576
            "schedule": Changes("paper", lambda without, given: len(given.kept[0]) == 75, STAGED, budget=1 / 3),
        },
        made=recycled,
    ),
    MethodOracle(
        method="sparsevlm_plus",
        score_layers=SCORES,
        cases={
            "two-heads": Case(
                {**COUNTS, "heads": 2}, partial(sparsevlm_plus, boundaries=THREE, counts=(80, 40, 25), heads=2)
            )
        },
        options={
            "layers": Changes(THREE, at(*THREE)),
            "counts": Changes((80, 40, 25), keeps(80, 40, 25)),
            "schedule": Changes("paper", keeps(75, 50, round(118 / 4)), STAGED, budget=1 / 3),
            "heads": Changes(1, same_counts, STAGED),
        },
    ),
    MethodOracle(
        method="sparsevlm_v1",
        score_layers={2: 1, 4: 3, 6: 5, 9: 8},
        cases={
            "scaled": Case(
                {"layers": FOUR, "scale": 3.0, "bias": 4.0},
                partial(sparsevlm_rank_adaptive, boundaries=FOUR, scale=3.0, bias=4.0),
            ),
            # int(rank * scale + bias) may be nothing: then only what is recycled stays
            "keeps-none": Case(
                {"layers": FOUR, "scale": 0.01, "bias": 0.0},
                partial(sparsevlm_rank_adaptive, boundaries=FOUR, scale=0.01, bias=0.0),
            ),
        },
        options={
            "layers": Changes(FOUR, at(*FOUR), SCALED),
            "counts": Refused((30,), "counts by scale and bias", 1 / 3),
            "schedule": Refused("paper", NO_PAPER, 1 / 3),
            "scale": Changes(2.0, lambda without, given: more_rows(given, without), budget=1 / 3),
            "bias": Changes(20.0, more_rows, SCALED),
        },
        scale={"scale": 2.0, "bias": 3.0},
        made=recycled,
    ),
)
