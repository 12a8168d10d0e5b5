"""What a run leaves behind: a report for every sample, a description of the run, and totals for lmms-eval's table."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed
from lmms_eval.api.instance import Instance, TokenCounts
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger

from swiftvlm_eval.efficiency.cost import executed_cost
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.pruning.trace import SampleTrace
from swiftvlm_eval.runs.batch_size import Choice
from swiftvlm_eval.runs.provenance import checkpoint_name, commit, package_versions
from swiftvlm_eval.runs.report import REPORT_KEY, RunDescription, SampleReport, run_lengths


@dataclass
class PrunedTokenCounts(TokenCounts):  # type: ignore[misc]
    """Token counts of an answer, with what pruning did to it; ends in lmms-eval's samples file."""

    report: SampleReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """The stock counts and, below a key of its own, the report."""
        counts: dict[str, Any] = super().to_dict()
        return counts if self.report is None else {**counts, REPORT_KEY: self.report.to_dict()}


@dataclass(frozen=True)
class Seconds:
    """How long one answer took, in seconds; None where a batch shares its time, or the vision tower is not in it.

    Attributes:
        prefill: until the first token was there.
        total: until the last one was.
    """

    prefill: float | None = None
    total: float | None = None


class Reporting:
    """Reports of the samples of one run on one process.

    Args:
        checkpoint: that answers.
        method: at work on it.
        describe: the run, asked for when a task's first sample is reported.
    """

    def __init__(self, checkpoint: Checkpoint, method: PruningMethod, describe: Callable[[], RunDescription]) -> None:
        self._checkpoint = checkpoint
        self._adapter = checkpoint.adapter
        self._method = method
        self._describe = describe
        self._described: set[str] = set()
        self._first: dict[str, Any] = {}
        self._failing: set[str] = set()
        self._totals = {"samples": 0, "seconds": 0.0, "generated": 0, "visual": 0.0, "without_tower": 0}

    def expect(self, requests: Sequence[Instance]) -> None:
        """What will be answered, in any order: the first request of each task is the one to describe the run."""
        self._first = {}
        for request in requests:
            self._first.setdefault(request.args[-2], request.args[-3])

    def counts(
        self,
        request: Instance,
        trace: SampleTrace,
        image: str | None,
        generated: int,
        failed: bool,
        seconds: Seconds,
        halved_batches: int | None = None,
    ) -> PrunedTokenCounts:
        """Token counts of an answer of `generated` tokens, with its report.

        Args:
            request: that was answered.
            trace: of its prefill.
            image: names its images (`models.images.image_digest`).
            generated: tokens of the answer.
            failed: the model's numbers were not finite.
            seconds: that it took.
            halved_batches: batches that ran out of memory before this one, told with the first sample of a batch.
        """
        report = self._report(request, trace, image, failed, seconds)
        if halved_batches is not None:
            report = report.model_copy(update={"halved_batches": halved_batches})
        return PrunedTokenCounts(trace.num_text + trace.num_visual, generated, None, report)

    def _report(
        self,
        request: Instance,
        trace: SampleTrace,
        image: str | None,
        failed: bool,
        seconds: Seconds,
    ) -> SampleReport:
        """What pruning did to one sample; the first sample of a task also describes the run."""
        cost = executed_cost(self._method, trace, self._adapter.decoder.shape, self._adapter.tower.shape)
        task = request.args[-2]
        if self._checkpoint.once is not None:
            seconds = Seconds()  # the vision tower is not in them, so they are no times of a whole answer
        if failed and task not in self._failing:
            self._failing.add(task)
            logger.warning("{} doc_id {}: logits are not finite; such samples count as failed", task, request.args[-3])
        report = SampleReport(
            failed=failed,
            image=image,
            visual_tokens=trace.num_visual,
            text_tokens=trace.num_text,
            rows_per_layer=run_lengths(trace.rows_per_layer),
            flops_t=cost.executed / 1e12,
            selection_flops_t={item: flops / 1e12 for item, flops in cost.selection.items()},
            flops_paper_t=cost.paper / 1e12,
            attributed_mean=cost.attributed_mean,
            prefill_s=seconds.prefill,
            total_s=seconds.total,
        )
        if task in self._described or self._first.get(task, request.args[-3]) != request.args[-3]:
            return report
        self._described.add(task)
        run = self._describe().model_copy(update={"planned_mean": trace.plan.mean_visual_tokens})
        return report.model_copy(update={"run": run})

    def count(self, request: Instance, trace: SampleTrace, generated: int, seconds: float) -> None:
        """Adds an answer to the totals, unless lmms-eval repeats a request to give all processes as many."""
        if (request.metadata or {}).get("__padding_only__"):
            return
        self._totals["samples"] += 1
        self._totals["seconds"] += seconds
        self._totals["generated"] += generated
        self._totals["visual"] += trace.mean_visual_tokens
        self._totals["without_tower"] += self._checkpoint.once is not None

    def log_totals(self, rank: int) -> None:
        """Totals over all processes into lmms-eval's throughput table; called on every process."""
        totals = [self._totals]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            totals = [{}] * torch.distributed.get_world_size()  # type: ignore[list-item]
            torch.distributed.all_gather_object(totals, self._totals)
        samples = sum(part["samples"] for part in totals)
        seconds = sum(part["seconds"] for part in totals)
        generated = int(sum(part["generated"] for part in totals))
        without_tower = int(sum(part["without_tower"] for part in totals))
        if rank == 0 and samples:
            log_metrics(
                total_elapsed_time=seconds,
                total_gen_tokens=generated,
                avg_speed=generated / seconds if seconds else 0.0,
                additional_metrics={
                    "n_samples": int(samples),
                    "mean_visual_tokens": sum(part["visual"] for part in totals) / samples,
                    **({"n_samples_timed_without_vision_tower": without_tower} if without_tower else {}),
                },
            )


def describe_run(
    checkpoint: Checkpoint,
    method: PruningMethod,
    *,
    budget: float,
    batch_size: int,
    batch_size_choice: Choice | None,
    system_prompt: str,
    seed: int,
    world_size: int,
) -> RunDescription:
    """The run, for the record: model, method with all options, and how it is executed."""
    decoder = checkpoint.adapter.decoder
    return RunDescription(
        method=method.name,
        options=method.options,
        source_sha256=method.source_sha256,
        caveat=method.caveat,
        budget=budget if method.name != "vanilla" else 1.0,
        schedule=method.schedule,
        pretrained=checkpoint_name(checkpoint.name, in_place=True),
        revision=getattr(checkpoint.model.config, "_commit_hash", None) or checkpoint.revision,
        family=checkpoint.family,
        shape=asdict(decoder.shape),
        dtype=str(checkpoint.model.dtype).removeprefix("torch."),
        device=device_name(checkpoint.model.device),
        attn_implementation=decoder.attention_implementation,
        batch_size=batch_size,
        batch_size_choice=batch_size_choice,
        image_mode=checkpoint.image_mode_in_force,
        system_prompt_sha256=hashlib.sha256(system_prompt.encode()).hexdigest()[:12],
        seed=seed,
        world_size=world_size,
        versions=package_versions(),
        commit=commit(),
    )


def device_name(device: torch.device) -> str:
    """The accelerator's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
