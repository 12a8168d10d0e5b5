"""The engine: a decoder loop of our own that stands in for the language model's forward inside a `with` block.

Decoding stays with the stock `generate()`. In prefill the loop runs the decoder layers one by one, and at the
boundaries that the method declares it asks the method, sample by sample, for the new visual rows. It owns positions,
masks and rotary tables, because each layer may see a different sequence. It knows no method by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from swiftvlm_eval.pruning.masks import SUPPORTED_ATTENTION, attention_mask
from swiftvlm_eval.pruning.method import Plan, PruningMethod, Signals, Stage
from swiftvlm_eval.pruning.rows import SampleRows, apply_edit, initial_rows
from swiftvlm_eval.pruning.signals import BoundAttention, TowerCapture
from swiftvlm_eval.pruning.trace import SampleTrace, StageTrace

if TYPE_CHECKING:
    from swiftvlm_eval.models.adapter import LlavaAdapter


@dataclass(frozen=True)
class Segment:
    """A run of layers that see the same sequence.

    Attributes:
        lengths: real rows per sample.
        width: rows of the padded batch.
        next_positions: float32, [B, 1], position id of the first generated token in these layers.
    """

    lengths: tuple[int, ...]
    width: int
    next_positions: Tensor


class PruningSession:
    """A method at work on a model. Made by `swiftvlm_eval.prune`.

    Attributes:
        traces: what happened to each sample of the last prefill.
        sample_keys: names of the samples of the next prefill; they seed the generators of random methods. None takes
            the prompt's own ids.
    """

    def __init__(self, adapter: "LlavaAdapter", method: PruningMethod, budget: float | None, seed: int = 0) -> None:
        if adapter.attention_implementation not in SUPPORTED_ATTENTION:
            found, allowed = adapter.attention_implementation, ", ".join(SUPPORTED_ATTENTION)
            raise ValueError(f"attn_implementation={found!r}: allowed are {allowed}")
        devices = sorted({str(next(layer.parameters()).device) for layer in adapter.layers})
        if len(devices) > 1:
            raise ValueError(f"decoder layers on {', '.join(devices)}: allowed is one device for all of them")
        self.adapter = adapter
        self.method = method
        self.budget = budget
        self.seed = seed
        self.traces: list[SampleTrace] = []
        self.sample_keys: Sequence[str] | None = None
        self.plan = lru_cache(maxsize=1024)(self._plan)
        self._tower = TowerCapture(adapter)
        self._input_ids: Tensor | None = None
        self._segments: list[Segment] = []  # one entry per decoder layer
        self._cache: Any = None
        self._seen = 0

    def _plan(self, num_visual: int) -> Plan:
        num_layers = self.adapter.shape.num_layers
        if num_visual == 0:
            return Plan(0, num_layers)
        layers = self.adapter.pruning_layers(self.method.name)
        return self.method.plan(num_visual, num_layers, self.budget, layers)

    @contextmanager
    def bound(self) -> Iterator["PruningSession"]:
        """Puts the loop in place of the decoder's forward; afterwards the model is itself again, whatever happened.

        Raises:
            RuntimeError: the model is already bound.
        """
        decoder, core = self.adapter.decoder, self.adapter.core
        if getattr(decoder.__dict__.get("forward"), "pruning_session", None) is not None:
            raise RuntimeError("the model is already inside a prune() block; leave it before entering another")
        replaced = {decoder: decoder.__dict__.get("forward"), core: core.__dict__.get("get_image_features")}
        forward = partial(self._forward)
        forward.pruning_session = self  # type: ignore[attr-defined]
        hooks = [core.register_forward_pre_hook(self._see_inputs, with_kwargs=True)]
        try:
            decoder.forward = forward
            core.get_image_features = self._watch_images(core.get_image_features)
            if self.method.reads_vision or self.method.resizes_images:
                hooks += self._tower.install(self._resize if self.method.resizes_images else None)
            yield self
        finally:
            for hook in hooks:
                hook.remove()
            for module, name in ((decoder, "forward"), (core, "get_image_features")):
                if replaced[module] is None:
                    module.__dict__.pop(name, None)
                else:
                    setattr(module, name, replaced[module])
            self._tower.forget()
            self._cache = self._input_ids = None

    def _resize(self, pixels: Tensor) -> Tensor:
        return self.method.resize_images(pixels, self.adapter.patches_per_side, self.budget)

    def _watch_images(self, stock: Any) -> Any:
        @wraps(stock)
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            self._tower.image_inputs = {"image_sizes": kwargs.get("image_sizes", args[1] if len(args) > 1 else None)}
            return stock(*args, **kwargs)

        return get_image_features

    def _see_inputs(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._input_ids = kwargs.get("input_ids", args[0] if args else None)

    # the decoder's forward

    def _forward(
        self,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **ignored: Any,
    ) -> BaseModelOutputWithPast:
        if inputs_embeds is None:
            raise ValueError("inputs_embeds=None: inside prune() call the LLaVA model, not its language model")
        if output_attentions or output_hidden_states:
            raise ValueError("output_attentions / output_hidden_states: not available inside prune(); read the trace")
        cache = DynamicCache(config=self.adapter.decoder.config) if past_key_values is None else past_key_values
        if not isinstance(cache, DynamicCache):
            raise ValueError(f"past_key_values of type {type(cache).__name__}: allowed is DynamicCache")
        if cache.get_seq_length() == 0:
            hidden = self._prefill(inputs_embeds, attention_mask, position_ids, cache)
        elif self._cache is not None and self._cache() is cache:
            hidden = self._continue(inputs_embeds, position_ids, cache)
        else:
            raise ValueError("past_key_values: this cache was not filled inside the current prune() block")
        return BaseModelOutputWithPast(
            last_hidden_state=self.adapter.decoder.norm(hidden),
            past_key_values=cache if use_cache is not False else None,
        )

    def _prefill(self, hidden: Tensor, mask: Tensor | None, position_ids: Tensor | None, cache: Any) -> Tensor:
        rows = self._read_prompt(hidden, mask, position_ids)
        plans = [self.plan(len(sample.index)) for sample in rows]
        self.traces = [
            SampleTrace(len(sample.index), len(sample.text), sample.question, plan)
            for sample, plan in zip(rows, plans, strict=True)
        ]
        self._segments, self._cache, self._seen = [], ref(cache), hidden.shape[1]
        stages = [{stage.boundary: stage for stage in plan.stages} for plan in plans]
        carries: list[Any] = [
            self._prepare(number, sample, hidden) if stages[number] else None for number, sample in enumerate(rows)
        ]
        boundaries = set().union(*stages)
        tables: tuple[Segment, Tensor | None, tuple[Tensor, Tensor]] | None = None
        previous: Tensor | None = None
        for layer, module in enumerate(self.adapter.layers):
            if layer in boundaries:
                due = [stage.get(layer) for stage in stages]
                hidden, rows, carries = self._edit(due, hidden, previous, rows, carries, cache)
                tables = None
            if tables is None:
                tables = self._tables(rows, hidden)
            segment, layer_mask, rope = tables
            self._segments.append(segment)
            for sample, trace in zip(rows, self.traces, strict=True):
                trace.rows_per_layer.append(len(sample.index))
            previous = hidden if layer + 1 in boundaries else None
            hidden = module(
                hidden,
                attention_mask=layer_mask,
                position_embeddings=rope,
                position_ids=None,  # gaps in position ids would be read as packed sequences
                past_key_values=cache,
                use_cache=True,
            )
        self._tower.forget()
        return hidden

    def _prepare(self, number: int, sample: SampleRows, hidden: Tensor) -> Any:
        """What the method wants to remember of the decoder's input."""
        if not self.method.prepares:
            return None
        states = hidden[number, hidden.shape[1] - len(sample) :]
        return self.method.prepare(
            self._signals(Stage(0, len(sample.index)), number, sample, states, None, None, None)
        )

    def _read_prompt(self, hidden: Tensor, mask: Tensor | None, position_ids: Tensor | None) -> list[SampleRows]:
        """The rows of every sample; one transfer from the device."""
        batch, width = hidden.shape[:2]
        if self._input_ids is None:
            raise ValueError("input_ids=None: inside prune() they are needed to find the visual tokens")
        if mask is not None and mask.dim() != 2:
            raise ValueError(f"attention_mask with {mask.dim()} dimensions: allowed is [batch, length]")
        if position_ids is None:
            position_ids = torch.arange(width, device=hidden.device)[None]
        position_ids = position_ids.expand(batch, width)
        real = torch.ones_like(self._input_ids) if mask is None else mask.to(self._input_ids)
        visual = (self._input_ids == self.adapter.image_token_id).to(real)
        found = []
        for sample, (is_real, is_visual) in enumerate(torch.stack([real, visual], dim=1).tolist()):
            start = width - sum(is_real)
            if not all(is_real[start:]) or start == width:
                raise ValueError("attention_mask: prompts must be padded on the left and hold at least one token")
            found.append(initial_rows([bool(v) for v in is_visual[start:]], position_ids[sample, start:]))
        return found

    def _tables(
        self, rows: Sequence[SampleRows], hidden: Tensor
    ) -> tuple[Segment, Tensor | None, tuple[Tensor, Tensor]]:
        """Segment, mask and rotary tables of the sequences as they are now; computed once per stage."""
        width = hidden.shape[1]
        lengths = tuple(len(sample) for sample in rows)
        positions = torch.zeros((len(rows), width), device=hidden.device)
        for number, sample in enumerate(rows):
            positions[number, width - len(sample) :] = sample.positions
        shared = self.method.rule == "keep" and bool(self._segments)
        following = self._segments[0].next_positions if shared else positions[:, -1:] + 1
        segment = Segment(lengths, width, following)
        mask = attention_mask(self.adapter.attention_implementation, lengths, width, width, 0, hidden)
        return segment, mask, self.adapter.rotary(hidden, positions)

    def _edit(
        self,
        due: Sequence[Stage | None],
        hidden: Tensor,
        previous: Tensor | None,
        rows: Sequence[SampleRows],
        carries: Sequence[Any],
        cache: Any,
    ) -> tuple[Tensor, list[SampleRows], list[Any]]:
        """Asks the method for every sample's new visual rows and builds the batch anew, padded on the left."""
        new_rows, new_states, new_carries = list(rows), [], list(carries)
        for number, (stage, sample) in enumerate(zip(due, rows, strict=True)):
            states = hidden[number, hidden.shape[1] - len(sample) :]
            if stage is not None:
                signals = self._signals(stage, number, sample, states, previous, carries[number], cache)
                edit = self.method.select(signals)
                new_carries[number] = edit.carry
                renumber = self.method.rule == "compact"
                new_rows[number], states = apply_edit(sample, states, edit, renumber)
                asked = 0 if signals.layer_attention is None else signals.layer_attention.asked
                done = StageTrace(stage.boundary, new_rows[number].index, len(sample.index), edit.made, asked)
                self.traces[number].stages.append(done)
                if self.method.reads_vision:
                    self.traces[number].encoder_inputs = signals.layout.num_tiles
            new_states.append(states)
        width = max(len(states) for states in new_states)
        if len(new_states) == 1:
            return new_states[0][None], new_rows, new_carries
        batch = hidden.new_zeros((len(new_states), width, hidden.shape[2]))
        for number, states in enumerate(new_states):
            batch[number, width - len(states) :] = states
        return batch, new_rows, new_carries

    def _signals(
        self,
        stage: Stage,
        number: int,
        rows: SampleRows,
        states: Tensor,
        previous: Tensor | None,
        carry: Any,
        cache: Any,
    ) -> Signals:
        before = None if previous is None else previous[number, previous.shape[1] - len(rows) :]
        counts = [trace.num_visual for trace in self.traces]
        attention = None
        if stage.scored_by == "previous":
            keys = cache.layers[stage.boundary - 1].keys[number][:, -len(rows) :]
            attention = BoundAttention(self.adapter, stage.boundary - 1, rows, before, keys)
        elif stage.scored_by == "next":
            attention = BoundAttention(self.adapter, stage.boundary, rows, states, None)
        return Signals(
            stage=stage,
            num_visual=counts[number],
            states=states[rows.visual],
            index=rows.index,
            positions=rows.positions[rows.visual],
            text_states=states[rows.text],
            question=rows.question,
            carry=carry,
            read_previous=partial(_visual_rows, before, rows),
            layer_attention=attention,
            read_layout=partial(self._tower.layout, counts, number),
            read_vision=partial(self._tower.signals, counts, number),
            read_seed=partial(self._sample_seed, number),
        )

    def _sample_seed(self, number: int) -> int:
        """A seed that depends on the run's seed and on the sample, not on its place in a batch."""
        if self.sample_keys is not None and len(self.sample_keys) == len(self.traces):
            key = self.sample_keys[number]
        else:
            prompt = self.traces[number].num_text + self.traces[number].num_visual
            key = str(self._input_ids[number, -prompt:].tolist()) if self._input_ids is not None else ""
        return int.from_bytes(blake2b(f"{self.seed}:{key}".encode(), digest_size=7).digest())

    def _continue(self, hidden: Tensor, position_ids: Tensor | None, cache: Any) -> Tensor:
        """Decoding, or another turn of the conversation: no pruning, every layer attends to what its cache holds."""
        done = cache.get_seq_length() - self._segments[0].width
        if hidden.shape[1] > 1 and position_ids is not None:
            # where the first layer was pruned, generate() repeats prompt rows that the cache stands for already
            fresh = int(position_ids[:, -1].max()) + 1 - self._seen - done
            hidden = hidden[:, -fresh:]
        width = hidden.shape[1]
        implementation = self.adapter.attention_implementation
        masks: dict[int, Tensor | None] = {}
        ropes: dict[int, tuple[Tensor, Tensor]] = {}
        for segment, module in zip(self._segments, self.adapter.layers, strict=True):
            if id(segment) not in masks:
                masks[id(segment)] = attention_mask(
                    implementation, segment.lengths, segment.width, width, done + width, hidden
                )
            if id(segment.next_positions) not in ropes:
                positions = segment.next_positions + torch.arange(done, done + width, device=hidden.device)
                ropes[id(segment.next_positions)] = self.adapter.rotary(hidden, positions)
            hidden = module(
                hidden,
                attention_mask=masks[id(segment)],
                position_embeddings=ropes[id(segment.next_positions)],
                position_ids=None,
                past_key_values=cache,
                use_cache=True,
            )
        return hidden


def _visual_rows(states: Tensor | None, rows: SampleRows) -> Tensor:
    if states is None:
        raise RuntimeError("no layer has run before boundary 0")
    return states[rows.visual]
