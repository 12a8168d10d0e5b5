"""Decoder pass over many questions that share one image: the prefix is computed once.

Equal to running Llama on every (prefix, question) pair alone, at a fraction of the cost: a question's rows attend to
the prefix's keys and, causally, to their own. A test holds the two equal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

MASKED = -1e4


def packed_decoder(
    decoder: LlamaModel, prefix: torch.Tensor, questions: torch.Tensor, reluctance: torch.Tensor | None = None
) -> torch.Tensor:
    """Hidden states after the final norm, [B, n, T, D], of n questions of T rows behind each prefix.

    Args:
        decoder: Llama with as many key/value heads as query heads.
        prefix: [B, P, D] embeddings of system prompt and visual tokens.
        questions: [B, n, T, D] embeddings, right-padded; rows behind a question's end are computed and meaningless.
        reluctance: [B, n, T], taken off every attention logit from a question's row to the prefix; none by default.
    """
    count, length = questions.shape[1:3]
    shared = prefix.shape[1]
    positions = torch.arange(shared + length, device=prefix.device)
    cos, sin = (table.unsqueeze(1) for table in decoder.rotary_emb(prefix, positions[None]))
    prefix_turn = cos[:, :, :shared], sin[:, :, :shared]
    question_turn = cos[:, :, shared:].repeat(1, 1, count, 1), sin[:, :, shared:].repeat(1, 1, count, 1)
    for layer in decoder.layers:
        prefix, questions = _layer(layer, prefix, questions, prefix_turn, question_turn, reluctance)
    normed: torch.Tensor = decoder.norm(questions)
    return normed


Rotation = tuple[torch.Tensor, torch.Tensor]


def _layer(
    layer: LlamaDecoderLayer,
    prefix: torch.Tensor,
    questions: torch.Tensor,
    prefix_turn: Rotation,
    question_turn: Rotation,
    reluctance: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    attention = layer.self_attn
    query, key, value = _project(layer, prefix, prefix_turn)
    own = _project(layer, questions.flatten(1, 2), question_turn)
    seen = _causal_attention(query, key, value)
    asked = _question_attention(own, key, value, questions.shape[1], reluctance)
    prefix = prefix + attention.o_proj(_merge_heads(seen))
    questions = questions + attention.o_proj(_merge_heads(asked)).view_as(questions)
    return (
        prefix + layer.mlp(layer.post_attention_layernorm(prefix)),
        questions + layer.mlp(layer.post_attention_layernorm(questions)),
    )


def _project(layer: LlamaDecoderLayer, rows: torch.Tensor, turn: Rotation) -> tuple[torch.Tensor, ...]:
    """Rotated queries, rotated keys and values of rows [B, L, D], each [B, heads, L, head_dim]."""
    attention = layer.self_attn
    normed = layer.input_layernorm(rows)
    shape = (*rows.shape[:2], -1, attention.head_dim)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (projection(normed).view(shape).transpose(1, 2) for projection in projections)
    return _rotate(query, *turn), _rotate(key, *turn), value


def _causal_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """[B, heads, L, head_dim] of the prefix over itself; on CPU in float32, bfloat16 being three times slower."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    with torch.autocast("cpu", enabled=False):
        seen = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=True)
    return seen.to(value.dtype)


def _question_attention(
    own: tuple[torch.Tensor, ...],
    prefix_key: torch.Tensor,
    prefix_value: torch.Tensor,
    count: int,
    reluctance: torch.Tensor | None,
) -> torch.Tensor:
    """[B, heads, n * T, head_dim]: every question over the prefix and, causally, over itself."""
    query, key, value = own
    batch, heads, rows, dim = query.shape
    split = (batch, heads, count, rows // count, dim)
    future = torch.full((split[3], split[3]), MASKED, device=query.device, dtype=query.dtype).triu(1)
    to_prefix = (query @ prefix_key.transpose(-1, -2)).view(*split[:4], -1)
    to_self = query.view(split) @ key.view(split).transpose(-1, -2) + future
    logits = torch.cat([to_prefix * dim**-0.5, to_self * dim**-0.5], dim=-1)
    if reluctance is not None:
        penalty = F.pad(reluctance.unsqueeze(-1).expand(*reluctance.shape, prefix_key.shape[2]), (0, split[3]))
        logits = logits - penalty.unsqueeze(1).to(logits.dtype)
    weights = torch.softmax(logits.float(), dim=-1).to(value.dtype)
    shared = prefix_key.shape[2]
    from_prefix = weights[..., :shared].reshape(batch, heads, rows, shared) @ prefix_value
    from_self = weights[..., shared:] @ value.view(split)
    return from_prefix + from_self.view(batch, heads, rows, dim)


def _rotate(rows: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = rows.shape[-1] // 2
    turned: torch.Tensor = rows * cos + torch.cat([-rows[..., half:], rows[..., :half]], dim=-1) * sin
    return turned


def _merge_heads(rows: torch.Tensor) -> torch.Tensor:
    return rows.transpose(1, 2).flatten(2)
