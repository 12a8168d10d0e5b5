"""The latency record: one frozen JSON document per run of `swiftvlm-eval latency`, with the times of every round.

One record is one process on one machine with one model: its contenders ran in turn, and its ratios are paired within a
round, so they are never mixed with another record's. The raw times are kept, so that a reader can take any other
statistic; what is derived from them is computed where it is shown, but for the verdict on the run itself.

Units: seconds, bytes, tokens; FLOPs one per multiply-accumulate. `None` always means "not measured".
"""

import hashlib
import json
import math
import re
from statistics import median
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from swiftvlm_eval.results.bounds import Amount, Count, StrictJson

FORMAT = "swiftvlm-eval/latency-record"
SCHEMA_VERSION = 1
STOCK, AGAIN, ENGINE, METHOD = "stock", "again", "engine", "method"
CONTROLS = (STOCK, AGAIN, ENGINE)
PARTS = ("tower", "projector", "selection", "decoder", "other")

Seconds = Annotated[float, Field(gt=0, le=1e6)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Ratio = tuple[Seconds, Seconds, Seconds]
"""Median of the paired ratios, and the ends of its 95 % interval."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LatencyModel(_Frozen):
    """What was run: random weights of these sizes.

    Attributes:
        name: The released checkpoint that has them; empty for sizes of one's own.
        family: `llava` or `llava_next`.
        hidden_size: Of the decoder, like the next four.
        intermediate_size: Width of its MLP.
        num_layers: Its layers.
        num_heads: Its query heads.
        num_kv_heads: Its key and value heads.
        vocabulary: Its words.
        tower_layers: Layers of the vision tower.
        tower_width: Its hidden size.
        tower_side: Patches along one side of its input.
        weight_bytes: All weights together.
    """

    name: str
    family: Literal["llava", "llava_next"]
    hidden_size: Count
    intermediate_size: Count
    num_layers: Count
    num_heads: Count
    num_kv_heads: Count
    vocabulary: Count
    tower_layers: Count
    tower_width: Count
    tower_side: Count
    weight_bytes: Bytes


class LatencyWorkload(_Frozen):
    """The prompts.

    Attributes:
        visual_tokens: N of each.
        encoder_inputs: Squares that the tower encodes for each.
        image_size: Height and width of each image in pixels, where images are tiled.
        text_tokens: Of each.
        output_tokens: Decoded after the prefill.
        batch_size: Prompts at once, of equal length.
    """

    visual_tokens: Count = Field(gt=0)
    encoder_inputs: Count = Field(gt=0)
    image_size: tuple[Count, Count] | None
    text_tokens: Count
    output_tokens: Count = Field(gt=0)
    batch_size: Count = Field(gt=0)


class LatencySettings(_Frozen):
    """How it was run.

    Attributes:
        dtype: Of weights and activations.
        attn: Attention kernel.
        clock: `wall`, or `cpu` time of the process.
        warmup: Rounds before the timed ones.
        rounds: Timed rounds, in which nothing but the clock was read.
        part_rounds: Rounds in which the parts were timed, after the others; 0 means that nothing was looked at inside.
    """

    dtype: str
    attn: str
    clock: Literal["wall", "cpu"]
    warmup: Count
    rounds: Count = Field(gt=0)
    part_rounds: Count


class Machine(_Frozen):
    """Where it ran. No host name.

    Attributes:
        device: `cpu` or `cuda`.
        name: Of the processor or the GPU.
        threads: Of torch on the processor.
        cpu_capability: The widest vector instructions that torch uses.
        bfloat16_instructions: Whether the processor multiplies bfloat16 itself; where not, it is emulated.
        cuda: Version of CUDA.
    """

    device: str
    name: str
    threads: Count
    cpu_capability: str | None = None
    bfloat16_instructions: bool | None = None
    cuda: str | None = None


class LatencySoftware(_Frozen):
    """Versions of packages by name, and the commit of this package."""

    versions: dict[str, str]
    commit: str | None


class LatencyContender(_Frozen):
    """One contender.

    Attributes:
        label: Its name with options and budget.
        role: `stock`, `again` (the stock model once more), `engine` (ours with nothing pruned) or `method`.
        method: Registered name; None for a control.
        options: Every option of the method.
        budget: As a share of N.
        prefill_s: Of the whole batch, vision tower and projector included, one entry a round.
        decode_s: Of one decoding step, mean over the steps of a round.
        rows_per_layer: Visual rows of each layer, mean over the batch.
        prefill_flops: Of the decoder layers and of the selection for the whole batch.
        parts_s: By part of the prefill, one entry for each round that looked at parts. `tower` holds what a method
            does inside the tower, `decoder` is without `selection`, `other` is what no part has.
        steps_s: Of every single decoding step in these rounds.
        cache_bytes: Keys and values after the prefill.
        peak_bytes: Tensors above weights and inputs, in a prefill and one decoding step.
    """

    label: str
    role: Literal["stock", "again", "engine", "method"]
    method: str | None
    options: dict[str, StrictJson]
    budget: float | None = Field(gt=0, le=1)
    prefill_s: tuple[Seconds, ...]
    decode_s: tuple[Seconds, ...]
    rows_per_layer: tuple[Amount, ...]
    prefill_flops: float = Field(gt=0, le=1e21)
    parts_s: dict[str, tuple[float, ...]]
    steps_s: tuple[Seconds, ...]
    cache_bytes: Bytes | None
    peak_bytes: Bytes | None

    @property
    def mean_rows(self) -> float:
        """Mean visual rows per layer."""
        return sum(self.rows_per_layer) / len(self.rows_per_layer)


class Verdict(_Frozen):
    """The stock model against itself, measured twice in every round.

    Attributes:
        prefill: Ratio of its prefills.
        decode: Ratio of its decoding steps.
        steady: Both intervals hold 1; otherwise the machine was too busy, and no speed-up is shown.
    """

    prefill: Ratio
    decode: Ratio
    steady: bool

    @model_validator(mode="after")
    def _follows(self) -> "Verdict":
        if self.steady != all(low <= 1 <= high for _, low, high in (self.prefill, self.decode)):
            raise ValueError(f"steady is {self.steady}, which its own intervals contradict")
        return self


class LatencyRecord(_Frozen):
    """One latency run.

    Attributes:
        format: Tells our files from anybody else's.
        schema_version: Of this schema.
        created: ISO 8601 in UTC.
        model: What was run.
        workload: On which prompts.
        settings: How.
        machine: Where.
        software: With what.
        peak_method: How `peak_bytes` were found: `cuda_allocator` (its own high-water mark) or `cpu_allocator_events`
            (summed from the allocations and releases that torch reports).
        again: Verdict on the run.
        contenders: The three controls, then the methods.
        refused: What could not be measured -> why.
    """

    format: Literal["swiftvlm-eval/latency-record"] = "swiftvlm-eval/latency-record"
    schema_version: Literal[1] = 1
    created: str
    model: LatencyModel
    workload: LatencyWorkload
    settings: LatencySettings
    machine: Machine
    software: LatencySoftware
    peak_method: Literal["cuda_allocator", "cpu_allocator_events"] | None
    again: Verdict
    contenders: tuple[LatencyContender, ...]
    refused: dict[str, str]

    @model_validator(mode="after")
    def _whole(self) -> "LatencyRecord":
        roles, labels = [each.role for each in self.contenders], {each.label for each in self.contenders}
        if tuple(roles[:3]) != CONTROLS or set(roles[3:]) - {METHOD}:
            raise ValueError(f"contenders: allowed are {', '.join(CONTROLS)}, then methods; found {', '.join(roles)}")
        if len(labels) != len(roles):
            raise ValueError("contenders: two have the same label")
        for each in self.contenders:
            self._check(each)
        stock, again = self.contenders[:2]
        for name, ratio in (("prefill_s", self.again.prefill), ("decode_s", self.again.decode)):
            pairs = zip(getattr(stock, name), getattr(again, name), strict=True)
            if not math.isclose(median(one / other for one, other in pairs), ratio[0], rel_tol=1e-6):
                raise ValueError(f"again: {name} of the stock model have another ratio")
        return self

    def _check(self, each: LatencyContender) -> None:
        rounds, looked = self.settings.rounds, self.settings.part_rounds
        lengths = {
            "prefill_s": (len(each.prefill_s), rounds),
            "decode_s": (len(each.decode_s), rounds),
            "rows_per_layer": (len(each.rows_per_layer), self.model.num_layers),
            "steps_s": (len(each.steps_s), looked * self.workload.output_tokens),
            **{part: (len(found), looked) for part, found in each.parts_s.items()},
        }
        for name, (found, expected) in lengths.items():
            if found != expected:
                raise ValueError(f"{each.label}: {name} has {found} entries, {expected} are expected")
        if set(each.parts_s) != (set(PARTS) if looked else set()):
            raise ValueError(f"{each.label}: parts_s has {', '.join(each.parts_s) or 'nothing'}")

    @property
    def record_id(self) -> str:
        """Twelve hex digits of the content."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    def stem(self) -> str:
        """File name without ending: model, N, batch, dtype, machine and `record_id`."""
        sizes = f"{self.model.hidden_size}x{self.model.num_layers}"
        lengths = f"N{self.workload.visual_tokens}", f"b{self.workload.batch_size}"
        parts = (self.model.name or sizes, *lengths, self.settings.dtype, self.machine.device, self.record_id)
        return "--".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part)[:40] for part in parts)

    def to_json(self) -> str:
        """Returns the record as JSON with a final newline; numbers of one list stand in one line."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
        numbers = re.compile(r"\[\n\s*([-+.\deE]+(?:,\n\s*[-+.\deE]+)*)\n\s*\]")
        return numbers.sub(lambda found: f"[{', '.join(found[1].replace(',', ' ').split())}]", text) + "\n"
