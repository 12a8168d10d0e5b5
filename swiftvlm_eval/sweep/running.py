"""Runs configurations one after the other, together with the other processes that share the output folder."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from swiftvlm_eval.models.encode_once import EncodeOnce
from swiftvlm_eval.models.families import family_of
from swiftvlm_eval.pruning.budget import BudgetError
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.runs.journal import Journal
from swiftvlm_eval.runs.provenance import commit, package_versions
from swiftvlm_eval.sweep.claims import Claim
from swiftvlm_eval.sweep.configurations import Configuration, settled
from swiftvlm_eval.sweep.documents import Documents
from swiftvlm_eval.sweep.features import encoding_once
from swiftvlm_eval.sweep.garbage import what_is_there_kept
from swiftvlm_eval.sweep.processes import Processes

if TYPE_CHECKING:
    from swiftvlm_eval.results import RunRecord


@dataclass(frozen=True)
class Outcome:
    """What became of a configuration.

    Attributes:
        configuration: the cell of the grid.
        status: `done`; `kept` (its record was there); `refused` or `claimed` by a process elsewhere, with the reason.
        record: the record file of the first two.
        reason: one sentence for the others.
    """

    configuration: Configuration
    status: str
    record: Path | None = None
    reason: str = ""


@dataclass(frozen=True)
class Preview:
    """What would become of a configuration.

    Attributes:
        configuration: the cell of the grid.
        status: `run`, `stored` (its record is there) or `refused`, with the reason.
        answers: stored ones of an unfinished run, which are not made again.
        reason: one sentence for what is refused.
    """

    configuration: Configuration
    status: str
    answers: int = 0
    reason: str = ""


class Sweep:
    """Runs configurations on one checkpoint.

    Under `accelerate launch` or `torchrun` every process makes one and calls `run` alike; the first one claims,
    writes records and cleans up.

    Args:
        checkpoint: a loaded `swiftvlm_eval.models.checkpoint.Checkpoint`.
        documents: what to run it on.
        out: folder for records (`records/`), lmms-eval's own files (`lmms_eval/`), unfinished answers (`partial/`) and
            notes of who runs what (`claims/`).
        batch_size: prompts per batch; `auto` lets each configuration choose the largest that fits, and is part of its
            name, so that it finds its record again.
        look_ahead: batches prepared ahead of the model; see `lmms.model.PrunedModel`.
        limit: documents per task, for trying things out; such records are marked.
        processes: those that share the documents; found out if not given.
        on_answers: called with the number of answers that this process just gave or found, in place of a bar.
        once: encodes every image once for all configurations whose needs it serves; None for none.
    """

    def __init__(
        self,
        checkpoint: Any,
        documents: Documents,
        out: Path,
        *,
        batch_size: int | Literal["auto"] = 1,
        look_ahead: int | None = None,
        limit: int | None = None,
        processes: Processes | None = None,
        on_answers: Callable[[int], object] | None = None,
        once: EncodeOnce | None = None,
    ) -> None:
        from swiftvlm_eval.lmms.model import model_class

        self.checkpoint = checkpoint
        self.documents = documents
        self.out = out
        self.batch_size = batch_size
        self.look_ahead = look_ahead
        self.limit = limit
        self.processes = processes or Processes(checkpoint.model.device.type)
        self.on_answers = on_answers
        self.once = once
        self.family = family_of(checkpoint.family)
        self.model_class = model_class(self.family.name)

    def run(self, grid: Sequence[Configuration]) -> Iterator[Outcome]:
        """Runs what is not there yet, yielding each outcome as it is known; what others have claimed comes last.

        Raises:
            RuntimeError: a run failed, or left out documents; its answers so far are kept.
        """
        elsewhere = []
        with what_is_there_kept():
            for configuration in grid:
                outcome = self._attempt(configuration)
                if outcome.status == "claimed":
                    elsewhere.append(configuration)
                else:
                    yield outcome
            # by now their records may be there, or their processes gone
            for configuration in elsewhere:
                yield self._attempt(configuration)

    def preview(self, grid: Sequence[Configuration]) -> list[Preview]:
        """What `run` would do, without doing it: nothing is claimed, written or deleted."""
        return [self._previewed(configuration) for configuration in grid]

    def _previewed(self, configuration: Configuration) -> Preview:
        try:
            configuration = settled(configuration, self.checkpoint.adapter)
            self._check(configuration)
        except ValueError as error:
            return Preview(configuration, "refused", reason=str(error))
        if self._record(configuration):
            return Preview(configuration, "stored")
        return Preview(configuration, "run", answers=len(Journal(self._answers_file(configuration))))

    def _attempt(self, configuration: Configuration) -> Outcome:
        try:
            configuration = settled(configuration, self.checkpoint.adapter)
        except ValueError as error:
            return Outcome(configuration, "refused", reason=str(error))
        claim = Claim(self.out / "claims", self._identity(configuration))
        outcome = self.processes.told(lambda: self._without_a_run(configuration, claim))
        if outcome is not None:
            return outcome
        try:
            if self.processes.first:
                self._clear_leftovers(configuration)
            outcome = Outcome(configuration, "done", self._run_one(configuration))
        except RuntimeError as error:  # on LLaVA-NeXT an image's own token count decides
            if not isinstance(error.__cause__, BudgetError):
                raise
            if self.processes.count > 1:  # the others are waiting for this one's answers
                raise RuntimeError(f"{configuration.label}: {error} Leave it out, or sweep in one process.") from error
            outcome = Outcome(configuration, "refused", reason=str(error))
        finally:
            if self.processes.first:
                claim.release(done=outcome is not None and outcome.status == "done")
        return outcome

    def _without_a_run(self, configuration: Configuration, claim: Claim) -> Outcome | None:
        """What can be said without running the configuration; None if it is to be run, under the claim now held."""
        try:
            self._check(configuration)
        except ValueError as error:
            return Outcome(configuration, "refused", reason=str(error))
        if record := self._record(configuration):
            self._clear_unfinished(configuration)
            claim.forget()
            return Outcome(configuration, "kept", record)
        if holder := claim.take():
            return Outcome(configuration, "claimed", reason=holder)
        if record := self._record(configuration):  # it has appeared meanwhile
            claim.release(done=True)
            return Outcome(configuration, "kept", record)
        return None

    def _check(self, configuration: Configuration) -> None:
        """Refuses, before any work, a budget or layers that the model's depth and number of visual tokens forbid."""
        adapter = self.checkpoint.adapter
        method = make_method(configuration.method, configuration.options)
        method = method.with_recommended(adapter.recommended_layers)
        method.plan(adapter.tower.patches_per_side**2, adapter.decoder.shape.num_layers, configuration.budget)

    def _identity(self, configuration: Configuration) -> str:
        """Names a configuration's files: everything that makes its answers what they are."""
        checkpoint = self.checkpoint
        facts = {
            **asdict(configuration),
            "model": checkpoint.name,
            "revision": checkpoint.revision,
            "content": checkpoint.content,
            "dtype": str(checkpoint.model.dtype),
            "attention": checkpoint.adapter.decoder.attention_implementation,
            "image_mode": checkpoint.image_mode,
            "batch_size": self.batch_size,
            "tasks": self.documents.names,
            "limit": self.limit,
        }
        if self.batch_size == 1 and self.look_ahead:  # a record without times is no stand-in for one with them
            facts["times"] = False
        method = make_method(configuration.method, configuration.options)
        if method.source_sha256 is not None:  # another code is another method
            facts["source_sha256"] = method.source_sha256
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
        return f"{method.name}-{configuration.budget:.4f}-{digest}"

    def _record_folder(self, configuration: Configuration) -> Path:
        return self.out / "records" / self._identity(configuration)

    def _record(self, configuration: Configuration) -> Path | None:
        """The configuration's record, None if there is none yet."""
        return min(self._record_folder(configuration).glob("*.record.json"), default=None)

    def _lmms_eval_folder(self, configuration: Configuration) -> Path:
        return self.out / "lmms_eval" / self._identity(configuration)

    def _answers_file(self, configuration: Configuration) -> Path:
        """Where the answers of an unfinished run by this code are."""
        return self.out / "partial" / f"{self._identity(configuration)}-{self._code()}.jsonl"

    def _clear_leftovers(self, configuration: Configuration) -> None:
        """Deletes what a killed run left: results without samples, or samples without a record."""
        for leftover in (self._lmms_eval_folder(configuration), self._record_folder(configuration)):
            if leftover.exists():
                shutil.rmtree(leftover)

    def _clear_unfinished(self, configuration: Configuration) -> None:
        """Deletes what is of no use beside a record: stored answers, of other code too, and half-written files."""
        for answers in (self.out / "partial").glob(f"{self._identity(configuration)}-*.jsonl"):
            answers.unlink(missing_ok=True)
        for half in self._record_folder(configuration).glob(".*.part"):
            half.unlink(missing_ok=True)

    def _run_one(self, configuration: Configuration) -> Path:
        processes = self.processes
        stored = self._answers_file(configuration)
        model = self.model_class(
            checkpoint=self.checkpoint,
            method=configuration.method,
            budget=configuration.budget,
            seed=configuration.seed,
            batch_size=self.batch_size,
            look_ahead=self.look_ahead,
            device=self.checkpoint.model.device.type,
            journal=Journal(stored, processes.number, processes.count),
            on_answers=self.on_answers,
            **configuration.options,
        )
        with encoding_once(self.checkpoint, self.once, model.method.needs):
            results_file = self._evaluate(model, configuration)
        return processes.told(lambda: self._keep(configuration, results_file))

    def _keep(self, configuration: Configuration, results_file: Path | None) -> Path:
        """Makes the record of a finished run, and deletes what it no longer needs.

        Raises:
            RuntimeError: lmms-eval left no results, or documents are missing in them.
        """
        from swiftvlm_eval.results import import_run, write_record

        if results_file is None or not results_file.is_file():
            raise RuntimeError(f"{configuration.label}: lmms-eval wrote no results file; is the disk full?")
        record, samples = import_run(results_file)
        self._require_all_answers(configuration, record)
        path = write_record(record, samples, self._record_folder(configuration))
        self._clear_unfinished(configuration)
        return path

    def _require_all_answers(self, configuration: Configuration, record: "RunRecord") -> None:
        """Refuses to record a run that left out documents: it would never be run again.

        Raises:
            RuntimeError: the message names task and counts.
        """
        missing = []
        for task, expected in self.documents.expected(self.limit).items():
            answered = record.tasks[task].answered or 0 if task in record.tasks else 0
            if answered != expected:
                missing.append(f"{task} {answered} of {expected}")
        if missing:
            raise RuntimeError(
                f"{configuration.label}: documents are missing in what lmms-eval wrote ({', '.join(missing)}), so "
                "there is no record; the answers are kept, and the next call goes on from them"
            )

    def _evaluate(self, model: Any, configuration: Configuration) -> Path | None:
        """One lmms-eval run; returns its results file, None if lmms-eval has nothing for this process."""
        from lmms_eval.evaluator import simple_evaluate
        from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
        from lmms_eval.utils import get_datetime_str

        folder = self._lmms_eval_folder(configuration)
        stamp = get_datetime_str(timezone="UTC")
        tracker = EvaluationTracker(output_path=str(folder))
        results = simple_evaluate(
            model=model,
            tasks=list(self.documents.names),
            batch_size=self.batch_size,
            limit=self.limit,
            log_samples=True,
            task_manager=self.documents.ready(),
            verbosity="WARNING",
            datetime_str=stamp,
            torch_random_seed=configuration.seed,
            cli_args=SimpleNamespace(process_with_media=False),  # its command line's default: scores need no images
        )
        if results is None:
            return None
        arguments = {
            "pretrained": self.checkpoint.name,
            "method": configuration.method,
            "budget": configuration.budget,
            "seed": configuration.seed,
            **configuration.options,
        }
        results["config"]["model"] = f"swiftvlm_{self.family.suffix}"
        results["config"]["resolved_cli_args"] = {"timezone": "UTC"}
        results["config"]["model_args"] = ",".join(f"{key}={value}" for key, value in arguments.items())
        samples = results.pop("samples")
        # the tracker gets names, not the model: it copies what it is given
        tracker.general_config_tracker.log_experiment_args(
            model_source=results["config"]["model"],
            model_args=results["config"]["model_args"],
            system_instruction=None,
            chat_template=None,
            fewshot_as_multiturn=False,
        )
        tracker.save_results_aggregated(results=results, samples=samples, datetime_str=stamp)
        for task in results["configs"]:
            tracker.save_results_samples(task_name=task, samples=samples[task])
        return next(folder.rglob(f"{stamp}_results.json"), None)

    def _code(self) -> str:
        """Names the code and device that answer: one record never mixes answers of two of them."""
        from swiftvlm_eval.lmms.reporting import device_name

        facts = json.dumps([commit(), package_versions(), device_name(self.checkpoint.model.device)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:8]
