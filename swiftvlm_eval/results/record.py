"""The run record: one frozen JSON document per evaluated configuration.

A configuration is (model, revision, method with all its options, budget, task set, limit, seed). The record says what
was asked for, what was executed (rows per decoder layer, FLOPs, times) and what was scored, with enough provenance to
decide whether two records may stand in one table. Every key is typed and explained here; unknown keys are refused, so
that a reader of an old file never guesses.

Units: tokens are counts, `*_tflops` are 1e12 operations in the counting convention of SwiftVLM (arXiv 2602.03134,
section 3.5), `*_ms` milliseconds, `*_s` seconds. `None` always means "not recorded".
"""

import hashlib
import json
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from swiftvlm_eval.results.bounds import Amount, Count, Score, Seed, Spread, StrictJson
from swiftvlm_eval.results.reproduce import reproduce
from swiftvlm_eval.runs.batch_size import Choice

FORMAT = "swiftvlm-eval/run-record"
SCHEMA_VERSION = 1
# Families under names that earlier records give them.
_RENAMED_FAMILIES = {"llava15": "llava"}
# File systems take names of 255 bytes; the record id tells apart what is cut.
_LONGEST_PART = 80

Status = Literal["complete", "limited", "partial", "unverified"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelShape(_Frozen):
    """Sizes of the language model, as far as the run recorded them."""

    hidden_size: Count | None = None
    intermediate_size: Count | None = None
    num_layers: Count | None = None
    num_heads: Count | None = None
    num_kv_heads: Count | None = None


class ModelDescription(_Frozen):
    """What was evaluated.

    Attributes:
        pretrained: Checkpoint name (`demo` is the embedded model); a folder appears as `local:<its name>-<hash>`.
        revision: Checkpoint revision.
        family: `llava`, `llava_next` or another `model_type` of a checkpoint's config; None for a model class that is
            not ours. Earlier records say `llava15` for `llava`, which they mean.
        lmms_eval_model: The name given to lmms-eval's `--model`.
        shape: Sizes of the language model.
    """

    pretrained: str | None
    revision: str | None
    family: str | None
    lmms_eval_model: str
    shape: ModelShape | None

    @field_validator("family")
    @classmethod
    def _by_its_present_name(cls, family: str | None) -> str | None:
        return None if family is None else _RENAMED_FAMILIES.get(family, family)


class MethodDescription(_Frozen):
    """The pruning method as configured.

    Attributes:
        name: Registered method name; None for a model class that does not prune through this package.
        options: Every option of the method. Of a run that does not describe itself only `model_args`, what lmms-eval
            was given for the model, without folders of the machine.
        budget: Budget as a share of the visual tokens entering the decoder, in (0, 1].
        schedule: `exact` (the budget is met) or `paper` (published counts of the named budget).
        source_sha256: Of the source file of a method from outside this package; None for a registered one.
        caveat: What a reader of its numbers must know; empty for most methods.
    """

    name: str | None
    options: dict[str, StrictJson]
    budget: float | None = Field(gt=0, le=1)
    schedule: StrictJson
    source_sha256: str | None = None
    caveat: str = ""


class Settings(_Frozen):
    """How it was run.

    Attributes:
        dtype: Weight and activation type.
        device: Device name.
        attn_implementation: Attention kernel of the decoder.
        batch_size: Batch size of generation.
        batch_size_choice: How `auto` chose it: `trial` (the longest prompts were answered, in larger batches until
            memory ran out), or `estimate` (from their sizes and the free memory). None if it was given.
        image_mode: Image preprocessing (`pad`, `hf_default`, ...).
        system_prompt_sha256: Start of the hash of the system sentence, which lmms-eval's prompts do not show.
        seed: Seed of random methods.
        world_size: Number of processes that shared the documents.
        limit: lmms-eval's `--limit`; None means all documents.
        offset: First document; 0 unless a part of a task was asked for.
        gen_kwargs: Generation arguments given on the command line.
    """

    dtype: str | None
    device: str | None
    attn_implementation: str | None
    batch_size: Count | None
    batch_size_choice: Choice | None = None
    image_mode: str | None
    system_prompt_sha256: str | None = None
    seed: Seed | None
    world_size: Count | None
    limit: Amount | None
    offset: Count
    gen_kwargs: StrictJson


class Software(_Frozen):
    """Versions: packages by name, the commit of this package, and lmms-eval's own version string."""

    versions: dict[str, str]
    commit: str | None
    lmms_eval_version: str | None


class Origin(_Frozen):
    """The lmms-eval output the record was made from.

    Attributes:
        results_file: Name of the results file, without folders.
        results_sha256: Its SHA-256.
        created: Time of the run, ISO 8601 in UTC.
    """

    results_file: str
    results_sha256: str
    created: str | None


class MetricScore(_Frozen):
    """One metric of one task, on lmms-eval's own scale.

    Attributes:
        value: The score; None if lmms-eval reported no finite number.
        stderr: Standard error of the score, documents taken as independent.
        n: Documents that carry a finite per-sample score; None without a per-sample file.
        higher_is_better: Direction, None if the task does not say.
    """

    value: Score | None
    stderr: Spread | None
    n: Count | None
    higher_is_better: bool | None


class Execution(_Frozen):
    """What the prefill of one task really did, as means over its samples.

    Attributes:
        samples: Samples that reported it (answers from a response cache do not).
        visual_tokens: Visual tokens entering the decoder.
        text_tokens: Text tokens of the prompt.
        rows_per_layer: Mean visual rows (merged rows included) of each decoder layer.
        mean_visual_tokens: Mean of `visual rows per layer` over layers and samples: the executed budget.
        executed_share: Mean over samples of (mean rows per layer / visual tokens).
        planned_share: Planned mean rows per layer / visual tokens, of the task's first document.
        attributed_mean_visual_tokens: The count a method's own paper reports where it differs from the executed one.
        executed_tflops: Executed prefill operations of the decoder layers and of the selection.
        paper_tflops: The layers with 70 text tokens, and the selection as the method's own paper counts it: the
            convention of arXiv 2602.03134, table 1.
        selection_tflops: The selection's part of `executed_tflops`, by kind of work. None in records written before
            it was counted for every method: theirs hold the paper's count.
    """

    samples: Count = Field(gt=0)
    visual_tokens: Amount
    text_tokens: Amount | None
    rows_per_layer: tuple[Amount, ...]
    mean_visual_tokens: Amount
    executed_share: Amount
    planned_share: Amount | None
    attributed_mean_visual_tokens: Amount | None
    executed_tflops: Amount | None
    paper_tflops: Amount | None
    selection_tflops: dict[str, Amount] | None = None


class Timing(_Frozen):
    """Times of one task.

    Attributes:
        samples: Samples that were timed.
        prefill_ms_median: Median prefill time of a sample.
        prefill_ms_q25: Lower quartile.
        prefill_ms_q75: Upper quartile.
        total_s: Sum over samples of the whole answer's time (None if any sample lacks it).
    """

    samples: Count = Field(gt=0)
    prefill_ms_median: Amount | None
    prefill_ms_q25: Amount | None
    prefill_ms_q75: Amount | None
    total_s: Amount | None


class TaskResult(_Frozen):
    """One lmms-eval task.

    Attributes:
        version: Version of the task as lmms-eval states it.
        dataset: What was loaded (key `split` of the task's samples: data set, revision, whether that is pinned, the
            commit it stood for, filter, row counts). Of a task that is silent, what lmms-eval's configuration says,
            which is no commit; None if that is no data set of the hub.
        expected: Documents this run had to score (after limit and offset).
        available: Documents of the whole task.
        answered: Per-sample lines found; None without a per-sample file.
        failed: Documents without a usable answer or score: missing lines, reported failures, scores that are NaN.
        prompts_sha256: Hash over document ids and prompts; equal hashes mean the same questions.
        documents_sha256: Hash over document ids and targets.
        clustered: Whether every per-sample line names its image, so that intervals can be clustered by it.
        metrics: Scores by metric.
        execution: What the prefill did; None if the model class does not report it.
        timing: Times; None if the model class does not report them.
        halved_batches: Batches that ran out of memory and were answered in halves, counted with the task of their
            first document. None of batches of one, and in records written before it was counted.
    """

    version: StrictJson
    dataset: StrictJson
    expected: Count
    available: Count
    answered: Count | None
    failed: Count | None
    prompts_sha256: str | None
    documents_sha256: str | None
    clustered: bool
    metrics: dict[str, MetricScore]
    execution: Execution | None
    timing: Timing | None
    halved_batches: Count | None = None


class SamplesFile(_Frozen):
    """The per-sample file beside the record: its name, SHA-256 and number of lines."""

    name: str
    sha256: str
    lines: Count


class RunRecord(_Frozen):
    """One evaluated configuration.

    Attributes:
        format: Always `swiftvlm-eval/run-record`: tells our files from anybody else's.
        schema_version: Version of this schema.
        status: `complete`; `limited` (a limit or an offset was set); `partial` (documents are missing or failed);
            `unverified` (all documents by lmms-eval's count, but no per-sample file to check it with, or our model
            class without a word on what it executed).
        status_reasons: Why the status is not `complete`.
        model: What was evaluated.
        method: The pruning method as configured.
        settings: How it was run.
        software: Versions.
        origin: The lmms-eval output the record was made from.
        tasks: Results by lmms-eval task name.
        wall_time_s: Duration of the whole run, model loading included.
        samples_file: The per-sample file; None while the record has not been written.
        extra: Keys of the run description this version does not know, kept as they came.
    """

    format: Literal["swiftvlm-eval/run-record"] = "swiftvlm-eval/run-record"
    schema_version: Literal[1] = 1
    status: Status
    status_reasons: tuple[str, ...]
    model: ModelDescription
    method: MethodDescription
    settings: Settings
    software: Software
    origin: Origin
    tasks: dict[str, TaskResult]
    wall_time_s: Amount | None
    samples_file: SamplesFile | None = None
    extra: dict[str, StrictJson] = {}

    @model_validator(mode="after")
    def _status_is_explained(self) -> "RunRecord":
        if (self.status == "complete") != (not self.status_reasons):
            raise ValueError(f"status {self.status!r} does not fit status_reasons {list(self.status_reasons)}")
        return self

    @property
    def configuration(self) -> dict[str, JsonValue]:
        """The configuration without the task set: two records that share it belong to one leaderboard row."""
        model, method, settings = self.model, self.method, self.settings
        outside: dict[str, JsonValue] = {} if method.source_sha256 is None else {"source": method.source_sha256}
        return {
            **outside,
            "pretrained": model.pretrained,
            "revision": model.revision,
            "lmms_eval_model": model.lmms_eval_model if method.name is None else None,
            "method": method.name,
            "options": method.options,
            "budget": method.budget,
            "schedule": method.schedule,
            "system_prompt": settings.system_prompt_sha256,
            "image_mode": settings.image_mode,
            "dtype": settings.dtype,
            "gen_kwargs": settings.gen_kwargs,
            "limit": settings.limit,
            "offset": settings.offset,
            "seed": settings.seed,
        }

    @property
    def record_id(self) -> str:
        """Twelve hex digits that name the configuration together with its task set."""
        content: dict[str, JsonValue] = {**self.configuration, "tasks": list[JsonValue](sorted(self.tasks))}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def reproduce(self) -> dict[str, str]:
        """Commands that make the record again, by kind (`sweep`, `lmms_eval`); empty where it does not tell enough."""
        return reproduce([self])

    @property
    def stem(self) -> str:
        """File name without ending: model, method, budget and `record_id`."""
        budget = "full" if self.method.budget is None else f"{self.method.budget:.3f}"
        parts = (self.model.pretrained or "unknown", self.method.name or self.model.lmms_eval_model, budget)
        plain = (re.sub(r"[^A-Za-z0-9.+-]+", "-", part)[:_LONGEST_PART].strip("-.") for part in parts)
        return "--".join([*plain, self.record_id])

    def to_json(self) -> str:
        """Returns the record as indented JSON with a final newline."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
