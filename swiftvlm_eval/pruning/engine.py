"""The engine: a decoder loop of our own that stands in for the language model's forward inside a `with` block.

Decoding stays with the stock `generate()`. In prefill the loop runs the decoder layers one by one, and at the
boundaries that the method declares it asks the method, sample by sample, for the new visual rows. It owns positions,
masks and rotary tables, because each layer may see a different sequence. It knows no method by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.attention import KERNELS
from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.tower import TowerCapture
from swiftvlm_eval.models.tower_rows import TowerPoint, TowerRows
from swiftvlm_eval.pruning.binding import restored, telling_ids
from swiftvlm_eval.pruning.boundary import Boundary
from swiftvlm_eval.pruning.caches import Segment, evict, following_ids
from swiftvlm_eval.pruning.consultation import Consultation
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit
from swiftvlm_eval.pruning.layer_rows import ModuleWatch
from swiftvlm_eval.pruning.masks import attention_mask, left_padded
from swiftvlm_eval.pruning.prompt import read_prompt, refuse_tensors, sample_seed
from swiftvlm_eval.pruning.rotations import Rotations
from swiftvlm_eval.pruning.rows import SampleRows, apply_edits, in_order
from swiftvlm_eval.pruning.schedule import Plan, Stage
from swiftvlm_eval.pruning.signals import check_needs
from swiftvlm_eval.pruning.trace import SampleTrace, StageTrace


class PruningSession:
    """A method at work on a model. Made by `swiftvlm_eval.prune`.

    Attributes:
        traces: what happened to each sample of the last prefill.
        questions: the user's question of each sample of the next prefill, for methods that read it as text.
        sample_keys: names of the samples of the next prefill; they seed the generators of random methods. None takes
            the prompt's own ids.
    """

    def __init__(self, adapter: FamilyAdapter, method: PruningMethod, budget: float | None, seed: int = 0) -> None:
        if adapter.decoder.attention_implementation not in KERNELS:
            found, allowed = adapter.decoder.attention_implementation, ", ".join(KERNELS)
            raise ValueError(f"attn_implementation={found!r}: allowed are {allowed}")
        check_needs(method, adapter)
        adapter.decoder.check_one_device()
        self.adapter = adapter
        self.method = method.for_model(adapter)
        self.budget = budget
        self.seed = seed
        self.traces: list[SampleTrace] = []
        self.sample_keys: Sequence[str] | None = None
        self.plan = lru_cache(maxsize=1024)(self._plan)
        self.questions: Sequence[str] | None = None
        self._tower = TowerCapture(adapter)
        self._modules = ModuleWatch()
        self._consultation = Consultation(self.method, adapter, self._layout, self._question, self._sample_seed)
        self._input_ids: Tensor | None = None
        self._counts: list[int] | None = None  # visual tokens of each prompt, once somebody asks
        self._segments: list[Segment] = []  # one entry per decoder layer
        self._layer_rows: list[Sequence[SampleRows]] = []  # likewise
        self._cache: Any = None
        self._seen, self._renumbered = 0, False  # by the latest edit

    @property
    def asked_alone(self) -> set[tuple[int, bool]]:
        """Where a `vectorized` method turned out to need its samples one by one; see `Consultation`."""
        return self._consultation.asked_alone

    def _plan(self, num_visual: int) -> Plan:
        num_layers = self.adapter.decoder.shape.num_layers
        if num_visual == 0:
            return Plan(0, num_layers)
        method = self.method.with_recommended(self.adapter.recommended_layers)
        return method.plan(num_visual, num_layers, self.budget)

    @contextmanager
    def bound(self) -> Iterator["PruningSession"]:
        """Puts the loop in place of the decoder's forward; afterwards the model is itself again, whatever happened.

        Raises:
            RuntimeError: the model is already bound.
        """
        decoder, core, model = self.adapter.decoder.module, self.adapter.core, self.adapter.model
        needs = self.method.needs
        if getattr(decoder.__dict__.get("forward"), "pruning_session", None) is not None:
            raise RuntimeError("the model is already inside a prune() block; leave it before entering another")
        forward = partial(self._forward)
        forward.pruning_session = self  # type: ignore[attr-defined]
        hooks = [core.register_forward_pre_hook(see, with_kwargs=True) for see in (self._see_inputs, self._tower.take)]
        try:
            with restored((decoder, "forward"), (core, "get_image_features"), (model, "generate")):
                decoder.forward = forward
                core.get_image_features = self._tower.watching(core.get_image_features)
                if needs & self.adapter.tower.offers:
                    side = self.adapter.tower.patches_per_side
                    resizing = partial(self.method.resize_images, side=side, budget=self.budget)
                    resize = resizing if "image_resizing" in needs else None
                    edit = self._edit_tower if "tower_rows" in needs else None
                    hooks += self._tower.install(resize, edit, "tower_states" in needs)
                if "tower_rows" in needs:
                    model.generate = telling_ids(model.generate, self._note_ids)
                if "module_io" in needs:
                    hooks += self._modules.install(self.adapter.decoder.layers)
                yield self
        finally:
            for hook in hooks:
                hook.remove()
            self._tower.forget()
            self._modules.forget()
            self._cache = self._input_ids = None

    def _edit_tower(self, rows: TowerRows, point: TowerPoint) -> TowerRows:
        """The method's edit, if the sample whose encoder input this is has a stage at the decoder's input."""
        if self._counts is None and self._input_ids is not None:
            self._counts = (self._input_ids == self.adapter.image_token_id).sum(dim=1).tolist()
        counts = self._counts or []
        sample, tile, tiles = self._tower.owner(counts, point.tile)
        due = [stage for stage in self.plan(counts[sample]).stages if stage.boundary == 0]
        return self.method.edit_tower(rows, replace(point, tile=tile, tiles=tiles), due[0]) if due else rows

    def _see_inputs(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._note_ids(kwargs.get("input_ids", args[0] if args else None))

    def _note_ids(self, ids: Tensor | None) -> None:
        self._input_ids, self._counts = ids, None

    def _forward(
        self,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **others: Any,
    ) -> BaseModelOutputWithPast:
        refuse_tensors(others)
        if inputs_embeds is None:
            raise ValueError("inputs_embeds=None: inside prune() call the LLaVA model, not its language model")
        if output_attentions or output_hidden_states:
            raise ValueError("output_attentions / output_hidden_states: not available inside prune(); read the trace")
        cache = DynamicCache(config=self.adapter.decoder.module.config) if past_key_values is None else past_key_values
        if not isinstance(cache, DynamicCache):
            raise ValueError(f"past_key_values of type {type(cache).__name__}: allowed is DynamicCache")
        if cache.get_seq_length() == 0:
            hidden = self._prefill(inputs_embeds, attention_mask, position_ids, cache)
        elif self._cache is not None and self._cache() is cache:
            hidden = self._continue(inputs_embeds, position_ids, cache)
        else:
            raise ValueError("past_key_values: this cache was not filled inside the current prune() block")
        return BaseModelOutputWithPast(
            last_hidden_state=self.adapter.decoder.module.norm(hidden),
            past_key_values=cache if use_cache is not False else None,
        )

    def _prefill(self, hidden: Tensor, mask: Tensor | None, position_ids: Tensor | None, cache: Any) -> Tensor:
        if self._input_ids is None:
            raise ValueError("input_ids=None: inside prune() they are needed to find the visual tokens")
        visual = self._input_ids == self.adapter.image_token_id
        rows = read_prompt(visual, mask, position_ids, self.adapter.decoder.position_axes)
        plans = [self.plan(len(sample.index)) for sample in rows]
        self.traces = [
            SampleTrace(len(sample.index), sample.arrangement.num_text, sample.num_question, plan)
            for sample, plan in zip(rows, plans, strict=True)
        ]
        self._segments, self._layer_rows, self._cache, self._seen = [], [], ref(cache), hidden.shape[1]
        stages = [{stage.boundary: stage for stage in plan.stages} for plan in plans]
        self._rotation = self._prompt_rotation = Rotations(self.adapter.decoder, hidden).of_batch(rows)
        boundaries = set().union(*stages)
        carries = self._prepare(stages, hidden, rows)
        tables: tuple[Segment, Tensor | None, tuple[Tensor, Tensor]] | None = None
        previous: Tensor | None = None
        for layer, module in enumerate(self.adapter.decoder.layers):
            if layer in boundaries:
                due = {number: stage[layer] for number, stage in enumerate(stages) if layer in stage}
                at = self._boundary(hidden, previous, rows, carries, cache.layers[layer - 1] if layer else None)
                hidden, rows, carries = self._edit(due, at, cache)
                self._rotation = self._rotation.source.of_batch(rows)
                tables = None
            if tables is None:
                tables = self._tables(rows, hidden)
            segment, layer_mask, rope = tables
            self._segments.append(segment)
            self._layer_rows.append(rows)
            for sample, trace in zip(rows, self.traces, strict=True):
                trace.rows_per_layer.append(len(sample.index))
            self._modules.active = layer if layer + 1 in boundaries else None
            previous = hidden if layer + 1 in boundaries else None
            scores = any(stage[layer + 1].scored_by == "previous" for stage in stages if layer + 1 in stage)
            with self._modules.input_of(module.self_attn, scores):
                hidden = module(
                    hidden,
                    attention_mask=layer_mask,
                    position_embeddings=rope,
                    position_ids=None,  # gaps in position ids would be read as packed sequences
                    past_key_values=cache,
                    use_cache=True,
                )
        self._tower.forget()
        self._modules.forget()
        return hidden

    def _prepare(self, stages: Sequence[Mapping[int, Stage]], hidden: Tensor, rows: Sequence[SampleRows]) -> list[Any]:
        """What the method wants to remember of every sample's decoder input."""
        carries: list[Any] = [None] * len(rows)
        if "decoder_input" in self.method.needs:
            due = {number: Stage(0, len(rows[number].index)) for number, own in enumerate(stages) if own}
            at = self._boundary(hidden, None, rows, carries, None)
            for number, carry in self._consultation.ask(self.method.prepare, due, at).items():
                carries[number] = carry
        return carries

    def _tables(
        self, rows: Sequence[SampleRows], hidden: Tensor
    ) -> tuple[Segment, Tensor | None, tuple[Tensor, Tensor]]:
        """Segment, mask and rotary tables of the sequences as they are now; computed once per stage."""
        width = hidden.shape[1]
        lengths = tuple(len(sample) for sample in rows)
        shared = not self._renumbered and bool(self._segments)
        segment = Segment(lengths, width, self._segments[-1].next_ids if shared else following_ids(rows))
        mask = attention_mask(self.adapter.decoder.attention_implementation, lengths, width, width, 0, hidden)
        return segment, mask, self._rotation.tables

    def _edit(self, due: Mapping[int, Stage], at: Boundary, cache: Any) -> tuple[Tensor, list[SampleRows], list[Any]]:
        """Asks the method for every sample's new visual rows and builds the batch anew, padded on the left."""
        for number, stage in due.items():
            at.rows[number] = at.rows[number].as_prompt(stage.part)
        edits = self._consultation.ask(lambda signals: in_order(self.method.select(signals)), due, at)
        states = [at.hidden[number, at.hidden.shape[1] - len(sample) :] for number, sample in enumerate(at.rows)]
        renumber = [self.method.rule_at(stage) == "compact" for stage in due.values()]
        self._renumbered = any(renumber)
        edited, pieces = apply_edits(
            [at.rows[number] for number in due],
            [states[number] for number in due],
            [edits[number] for number in due],
            renumber,
        )
        rows, carries = dict(enumerate(at.rows)), list(at.carries)
        parts: dict[int, Sequence[Tensor]] = {number: [own] for number, own in enumerate(states)}
        for (number, stage), new, own in zip(due.items(), edited, pieces, strict=True):
            trace, edit = self.traces[number], edits[number]
            trace.stages.append(StageTrace(stage.boundary, new.original_index, len(rows[number].index), edit.made))
            if stage.part == 0 and self._looks_at_tower:
                trace.layout = self._layout(number)
            rows[number], parts[number], carries[number] = new, own, edit.carry
        self._evict(edits, cache)
        return left_padded(list(parts.values())), list(rows.values()), carries

    def _evict(self, edits: Mapping[int, RowEdit], cache: Any) -> None:
        """Removes what the edits drop from the caches of layers that have run, where they ask for it."""
        asked = {number: edit for number, edit in edits.items() if edit.evict_from is not None}
        for layer in range(min((edit.evict_from or 0 for edit in asked.values()), default=0), len(self._segments)):
            due = {number: edit.index for number, edit in asked.items() if layer >= (edit.evict_from or 0)}
            if due:
                rows = self._layer_rows[layer]
                self._segments[layer], self._layer_rows[layer] = evict(
                    cache.layers[layer], rows, due, self._segments[layer]
                )

    def _boundary(
        self, hidden: Tensor, previous: Tensor | None, rows: Sequence[SampleRows], carries: Sequence[Any], layer: Any
    ) -> Boundary:
        """The batch between two layers; `layer` is the cache's entry of the one that has just run, None for none."""
        return Boundary(
            hidden=hidden,
            previous=previous,
            rows=list(rows),
            carries=carries,
            cached=None if layer is None else (layer.keys, layer.values),
            normed=self._modules.normed,
            modules=self._modules.seen,
            rotation=self._rotation,
            prompt_rotation=self._prompt_rotation,
            tower=partial(self._tower.signals, self._num_visual) if self._looks_at_tower else None,
        )

    @property
    def _looks_at_tower(self) -> bool:
        return bool(self.method.needs & self.adapter.tower.offers)

    @property
    def _num_visual(self) -> list[int]:
        return [trace.num_visual for trace in self.traces]

    def _layout(self, number: int) -> VisualLayout:
        return self._tower.layout(self._num_visual, number)

    def _question(self, number: int) -> str | None:
        questions: Sequence[str | None] = self.questions or [None]
        return questions[number * len(questions) // len(self.traces)]  # beams of a sample share one

    def _sample_seed(self, number: int, part: int) -> int:
        keys, trace = self.sample_keys, self.traces[number]
        if keys is not None and len(keys) == len(self.traces):
            return sample_seed(self.seed, keys[number], part)
        ids = [] if self._input_ids is None else self._input_ids[number, -trace.num_text - trace.num_visual :].tolist()
        return sample_seed(self.seed, str(ids), part)

    def _continue(self, hidden: Tensor, position_ids: Tensor | None, cache: Any) -> Tensor:
        """Decoding, or another turn of the conversation: no pruning, every layer attends to what its cache holds."""
        done = cache.get_seq_length() - self._segments[0].width
        if hidden.shape[1] > 1 and position_ids is not None:
            # where the first layer was pruned, generate() repeats prompt rows that the cache stands for already
            text_ids = position_ids if position_ids.dim() == 2 else position_ids[0]
            fresh = int(text_ids[:, -1].max()) + 1 - self._seen - done
            hidden = hidden[:, -fresh:]
        width = hidden.shape[1]
        implementation = self.adapter.decoder.attention_implementation
        masks: dict[int, Tensor | None] = {}
        ropes: dict[int, tuple[Tensor, Tensor]] = {}
        for segment, module in zip(self._segments, self.adapter.decoder.layers, strict=True):
            if id(segment) not in masks:
                masks[id(segment)] = attention_mask(
                    implementation, segment.lengths, segment.width, width, done + width, hidden
                )
            if id(segment.next_ids) not in ropes:
                ids = segment.next_ids + torch.arange(done, done + width, device=hidden.device)
                ropes[id(segment.next_ids)] = self.adapter.decoder.rotary(hidden, ids)
            hidden = module(
                hidden,
                attention_mask=masks[id(segment)],
                position_embeddings=ropes[id(segment.next_ids)],
                position_ids=None,
                past_key_values=cache,
                use_cache=True,
            )
        return hidden
