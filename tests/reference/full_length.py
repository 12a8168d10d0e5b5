"""One decoder pass over [prompt + generated] rows with an explicit row list per layer: the slow oracle of the methods.

No cache, no batch, no attention kernel: every layer recomputes all rows in float32, attention is written out head by
head. Generated rows come after the prompt in a causal model, so a single pass gives the logits of every decode step.
A pruning method is a set of edits, each one a function called at a layer boundary that returns the new prompt rows.
Boundary b means that b decoder layers have been executed in full.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """What a prompt row is.

    ``index`` is the slot in the unpruned prompt for "text", the original visual index (0 = first visual token) for
    "visual", and for "merged" the number of the group (plus 1000 times the boundary where merged rows outlive the next
    stage). A row of kind "made" was produced before the decoder from several patches (or is a class token) and has no
    original visual index; it is numbered within the visual block.
    """

    kind: Literal["text", "visual", "merged", "made"]
    index: int


@dataclass(frozen=True)
class State:
    """The prompt rows at a boundary: labels, vectors (rows, hidden size), positions, and the next free position."""

    rows: tuple[Row, ...]
    hidden: Tensor
    positions: tuple[float, ...]
    next_position: int

    @property
    def visual(self) -> list[int]:
        """Places (not original indices) of the rows that are not text."""
        return [place for place, row in enumerate(self.rows) if row.kind != "text"]

    @property
    def question(self) -> list[int]:
        """Places of the text rows after the last row that is not text."""
        return list(range(self.visual[-1] + 1, len(self.rows)))

    @property
    def last(self) -> int:
        """Place of the last prompt row, the query of every attention score."""
        return len(self.rows) - 1

    def take(self, places: Sequence[int]) -> "State":
        """Keep the rows at the given places, with their positions."""
        return replace(
            self,
            rows=tuple(self.rows[place] for place in places),
            hidden=self.hidden[list(places)],
            positions=tuple(self.positions[place] for place in places),
        )

    def reindexed(self) -> "State":
        """Number the rows 0, 1, 2, ... and let generated rows continue from there."""
        return replace(self, positions=tuple(float(i) for i in range(len(self.rows))), next_position=len(self.rows))


class Merged(NamedTuple):
    """A merged vector: the boundary, the members (original visual indices or labels) and the vector itself."""

    boundary: int
    members: tuple[Any, ...]
    vector: Tensor


@dataclass
class Run:
    """What a reference run saw.

    Attributes:
        logits: (1 + generated, vocabulary), of the last prompt row and of each generated row.
        kept_indices: original visual indices in the sequence after each stage, in sequence order.
        rows: for each layer the labels of its prompt rows.
        prompt_positions: for each layer the positions of its prompt rows.
        generated_positions: for each layer the positions of the generated rows.
        merged: the vectors made by merging, in the order in which they were made.
        scores: for each stage the scores, in the order of the candidates of that stage.
        boundaries: hidden states of the prompt rows at each boundary, after the edit there; entry T is the output.
        outputs: hidden states of the prompt rows that each layer gave, before the edit at the next boundary.
        raters: text rows (slots in the prompt) whose attention rows are averaged, where a method uses them.
        sources: where each visual row comes from, for methods that act before the decoder.
    """

    logits: Tensor
    kept_indices: list[list[int]] = field(default_factory=list)
    rows: list[tuple[Row, ...]] = field(default_factory=list)
    prompt_positions: list[tuple[float, ...]] = field(default_factory=list)
    generated_positions: list[tuple[float, ...]] = field(default_factory=list)
    merged: list[Merged] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    boundaries: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    raters: list[int] = field(default_factory=list)
    sources: list[tuple[Any, ...]] = field(default_factory=list)

    def visual_rows(self) -> list[int]:
        """Number of rows other than text in each layer."""
        return [sum(row.kind != "text" for row in rows) for rows in self.rows]


Edit = Callable[[State, State | None, Run], State]
"""(rows at the boundary, rows that entered the previous layer or None at boundary 0, record) -> new rows."""


@torch.no_grad()
def run_full_length(
    model: Any,
    start: State,
    generated: Sequence[int],
    edits: Mapping[int, Edit],
    record: Run | None = None,
    forgotten: Mapping[int, Collection[Row]] | None = None,
) -> Run:
    """Run the decoder layer by layer, applying ``edits[b]`` to the prompt rows at boundary b.

    Generated rows do not see the prompt rows that a layer has ``forgotten``.
    """
    decoder = model.model.language_model
    record = record if record is not None else Run(logits=torch.empty(0))
    out_of_range = [boundary for boundary in edits if not 0 <= boundary < len(decoder.layers)]
    if out_of_range:
        raise ValueError(f"boundaries {out_of_range}, allowed are 0..{len(decoder.layers) - 1}")
    state, entered_previous = start, None
    answer = decoder.embed_tokens(torch.tensor(list(generated), dtype=torch.long)).float()
    for number, layer in enumerate(decoder.layers):
        if number in edits:
            state = edits[number](state, entered_previous, record)
        prompt_rows = len(state.rows)
        answer_positions = tuple(float(state.next_position + step) for step in range(len(generated)))
        record.rows.append(state.rows)
        record.prompt_positions.append(state.positions)
        record.generated_positions.append(answer_positions)
        record.boundaries.append(state.hidden)
        everything = torch.cat([state.hidden, answer])
        unseen = torch.zeros(len(everything), len(everything), dtype=torch.bool)
        gone = (forgotten or {}).get(number, ())
        unseen[prompt_rows:, [place for place, row in enumerate(state.rows) if row in gone]] = True
        output = decoder_layer(decoder, layer, everything, state.positions + answer_positions, unseen)
        record.outputs.append(output[:prompt_rows])
        entered_previous = state
        state, answer = replace(state, hidden=output[:prompt_rows]), output[prompt_rows:]
    record.boundaries.append(state.hidden)
    record.logits = model.lm_head(decoder.norm(torch.cat([state.hidden[-1:], answer])))
    return record


def rotate(decoder: Any, vectors: Tensor, positions: Sequence[float]) -> Tensor:
    """Rotary embedding (arXiv:2104.09864) of (rows, head size) at the given, possibly fractional, positions."""
    size = vectors.shape[-1]
    base = decoder.config.rope_parameters["rope_theta"]
    half = size // 2
    frequency = torch.tensor([1.0 / base ** (2 * i / size) for i in range(half)], dtype=torch.float32)
    angle = torch.tensor(list(positions), dtype=torch.float32)[:, None] * frequency[None, :]
    first, second = vectors[:, :half], vectors[:, half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=1)


def split_heads(decoder: Any, projected: Tensor) -> list[Tensor]:
    """Cut (rows, heads * head size) into one (rows, head size) matrix per head."""
    config = decoder.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return [projected[:, start : start + size] for start in range(0, projected.shape[1], size)]


def attention_output(
    decoder: Any, layer: Any, normed: Tensor, positions: Sequence[float], unseen: Tensor | None = None
) -> Tensor:
    """What the attention of a layer makes of its normalised rows; a row sees itself and the rows before it.

    ``unseen`` (rows, rows) is true where a row does not see another one for a reason of its own.
    """
    rows = normed.shape[0]
    queries = split_heads(decoder, layer.self_attn.q_proj(normed))
    keys = split_heads(decoder, layer.self_attn.k_proj(normed))
    values = split_heads(decoder, layer.self_attn.v_proj(normed))
    group = len(queries) // len(keys)
    hidden = torch.ones(rows, rows).triu(1).bool()
    hidden = hidden if unseen is None else hidden | unseen
    mixed = []
    for head, query in enumerate(queries):
        key, value = keys[head // group], values[head // group]
        logits = rotate(decoder, query, positions) @ rotate(decoder, key, positions).T / query.shape[1] ** 0.5
        mixed.append(torch.softmax(logits.masked_fill(hidden, float("-inf")), dim=1) @ value)
    result: Tensor = layer.self_attn.o_proj(torch.cat(mixed, dim=1))
    return result


def decoder_layer(
    decoder: Any, layer: Any, hidden: Tensor, positions: Sequence[float], unseen: Tensor | None = None
) -> Tensor:
    """Run one decoder layer on (rows, hidden size)."""
    hidden = hidden + attention_output(decoder, layer, layer.input_layernorm(hidden), positions, unseen)
    result: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return result


def key_rows(decoder: Any, layer_number: int, state: State, places: Sequence[int]) -> Tensor:
    """Rotated keys of the rows that enter a layer, all key heads side by side: (places, key heads * head size)."""
    layer, places = decoder.layers[layer_number], list(places)
    keys = split_heads(decoder, layer.self_attn.k_proj(layer.input_layernorm(state.hidden[places])))
    positions = [state.positions[place] for place in places]
    return torch.cat([rotate(decoder, key, positions) for key in keys], dim=1)


def attention_rows(
    decoder: Any,
    layer_number: int,
    state: State,
    query_places: Sequence[int],
    key_places: Sequence[int],
    *,
    rope: bool = True,
) -> Tensor:
    """Attention probabilities of one layer, (heads, queries, keys), normalised over the visible key places."""
    layer = decoder.layers[layer_number]
    normed = layer.input_layernorm(state.hidden)
    queries = split_heads(decoder, layer.self_attn.q_proj(normed[list(query_places)]))
    keys = split_heads(decoder, layer.self_attn.k_proj(normed[list(key_places)]))
    hidden_from_query = torch.tensor([[key > query for key in key_places] for query in query_places])
    result = []
    for head, query in enumerate(queries):
        key = keys[head // (len(queries) // len(keys))]
        if rope:
            query = rotate(decoder, query, [state.positions[place] for place in query_places])
            key = rotate(decoder, key, [state.positions[place] for place in key_places])
        logits = query @ key.T / query.shape[1] ** 0.5
        result.append(torch.softmax(logits.masked_fill(hidden_from_query, float("-inf")).float(), dim=1))
    return torch.stack(result)


def last_row_scores(
    decoder: Any,
    layer_number: int,
    state: State,
    candidates: Sequence[int],
    *,
    scope: Literal["full", "visual"],
    rope: bool = True,
) -> Tensor:
    """Score the candidate places by the attention of the last prompt row, averaged over heads after the softmax.

    Scope "full" normalises over all rows of the state, "visual" over the candidates only.
    """
    keys = list(range(len(state.rows))) if scope == "full" else list(candidates)
    mean = attention_rows(decoder, layer_number, state, [state.last], keys, rope=rope)[:, 0, :].mean(dim=0)
    return mean[[keys.index(place) for place in candidates]]


def top(count: int, scores: Tensor) -> list[int]:
    """Indices of the largest scores, best first, ties to the lower index."""
    values = scores.float().tolist()
    if not 0 <= count <= len(values):
        raise ValueError(f"count is {count}, allowed are 0..{len(values)}")
    return sorted(range(len(values)), key=lambda index: (-values[index], index))[:count]


def keep_visual(state: State, kept_places: Sequence[int], record: Run) -> State:
    """Drop the visual rows that are not at ``kept_places``; text stays, the order stays, positions stay."""
    kept = set(kept_places)
    new = state.take([p for p, row in enumerate(state.rows) if row.kind == "text" or p in kept])
    record.kept_indices.append(visual_indices(new))
    return new


def visual_indices(state: State) -> list[int]:
    """Original visual indices of the rows that are still original visual tokens."""
    return [row.index for row in state.rows if row.kind == "visual"]
