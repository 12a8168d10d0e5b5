"""A grid of methods and budgets on one loaded model, through lmms-eval, one record per configuration.

A configuration whose record is there is not run again; one that was interrupted goes on from its stored answers.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swiftvlm_eval.journal import Journal
from swiftvlm_eval.provenance import commit, package_versions
from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, BudgetError, parse_budget
from swiftvlm_eval.pruning.methods import make_method, method_names


@dataclass(frozen=True)
class Configuration:
    """One cell of the grid.

    Attributes:
        method: registered name.
        options: the method's options, as typed.
        budget: share of N; 1 for vanilla.
        seed: of methods that draw at random.
    """

    method: str
    budget: float
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def label(self) -> str:
        """For people: `fastv[layers=3] 0.333`."""
        options = ";".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.method}{f'[{options}]' if options else ''} {self.budget:.3g}" + (
            f" seed {self.seed}" if self.seed else ""
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a configuration: `done`, `kept` (its record was there), or `refused` with the reason."""

    configuration: Configuration
    status: str
    record: Path | None = None
    reason: str = ""


def parse_methods(text: str) -> list[tuple[str, dict[str, str]]]:
    """Reads `vanilla,fastv[layers=3;scope=visual]`; `all` stands for every registered method, vanilla first.

    Raises:
        ValueError: malformed, unknown method or unknown option.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, _, rest = part.partition("[")
        if rest and not rest.endswith("]"):
            raise ValueError(f"methods={part!r}: options are written as name[option=value;option=value]")
        pairs = [pair.partition("=") for pair in rest.removesuffix("]").split(";") if pair]
        if any(not sign for _, sign, _ in pairs):
            raise ValueError(f"methods={part!r}: options are written as name[option=value;option=value]")
        names = sorted(method_names(), key=lambda known: known != "vanilla") if name == "all" else [name]
        for known in names:
            options = {key.strip(): value.strip() for key, _, value in pairs}
            make_method(known, options)
            found.append((known, options))
    if not found:
        raise ValueError(f"methods={text!r}: allowed are all, {', '.join(method_names())}")
    return found


def make_grid(
    methods: Sequence[tuple[str, Mapping[str, Any]]],
    budgets: Sequence[str],
    seeds: Sequence[int] = (0,),
    visual_tokens: int | None = REFERENCE_VISUAL_TOKENS,
) -> list[Configuration]:
    """The configurations of a grid; vanilla stands in it once and only `random` for every seed.

    Args:
        methods: (name, options).
        budgets: as typed.
        seeds: of methods that draw at random.
        visual_tokens: visual tokens of every image of the model; None where they depend on the image. As long as the
            model is not known, 576, so that counts pass.

    Raises:
        BudgetError: a malformed budget, or a count that says nothing for such a model.
    """
    shares = [parse_budget(budget, visual_tokens) for budget in budgets]
    grid = []
    for name, options in methods:
        for share in [1.0] if name == "vanilla" else shares:
            for seed in seeds if name.startswith("random") else seeds[:1]:
                grid.append(Configuration(name, share, dict(options), seed))
    return list({json.dumps(asdict(cell), sort_keys=True): cell for cell in grid}.values())


class Sweep:
    """Runs configurations on one checkpoint.

    Args:
        checkpoint: a loaded `swiftvlm_eval.llava.checkpoint.Checkpoint`.
        tasks: lmms-eval task or group names.
        out: folder for records (`records/`), lmms-eval's own files (`lmms_eval/`) and unfinished answers (`partial/`).
        batch_size: prompts per batch.
        limit: documents per task, for trying things out; such records are marked.

    Raises:
        ValueError: a task that lmms-eval does not know.
    """

    def __init__(
        self, checkpoint: Any, tasks: Sequence[str], out: Path, *, batch_size: int = 1, limit: int | None = None
    ) -> None:
        from lmms_eval import models  # noqa: F401  (builds the registry, which makes our tasks known)
        from lmms_eval.tasks import TaskManager

        from swiftvlm_eval import lmms

        self.checkpoint = checkpoint
        self.out = out
        self.batch_size = batch_size
        self.limit = limit
        families = {cls.family: cls for cls in (lmms.SwiftvlmLlava, lmms.SwiftvlmLlavaNext)}
        self.model_class = families[checkpoint.family]
        self.task_manager = TaskManager(verbosity="WARNING", model_name=f"swiftvlm_{self.family_name}")
        self.tasks = sorted(tasks)
        unknown = [task for task in self.tasks if task not in self.task_manager.all_tasks]
        if unknown:
            raise ValueError(f"tasks={','.join(unknown)}: unknown to lmms-eval; see `lmms_eval --tasks list`")

    @property
    def family_name(self) -> str:
        """`llava` or `llava_next`, as in lmms-eval model names."""
        return "llava_next" if self.checkpoint.family == "llava_next" else "llava"

    def run(self, grid: Sequence[Configuration]) -> Iterator[Outcome]:
        """Runs what is not there yet, yielding each outcome as it is known."""
        for configuration in grid:
            try:
                self._check(configuration)
            except ValueError as error:
                yield Outcome(configuration, "refused", reason=str(error))
                continue
            done = sorted(self._record_folder(configuration).glob("*.record.json"))
            if done:
                yield Outcome(configuration, "kept", done[0])
            else:
                try:
                    yield Outcome(configuration, "done", self._run_one(configuration))
                except RuntimeError as error:  # on LLaVA-NeXT an image's own token count decides
                    if not isinstance(error.__cause__, BudgetError):
                        raise
                    yield Outcome(configuration, "refused", reason=str(error))

    def _check(self, configuration: Configuration) -> None:
        """Refuses, before any work, a budget or layers that the model's depth and number of visual tokens forbid."""
        adapter = self.checkpoint.adapter
        method = make_method(configuration.method, configuration.options)
        layers = adapter.pruning_layers(method.name)
        method.plan(adapter.patches_per_side**2, adapter.shape.num_layers, configuration.budget, layers)

    def _identity(self, configuration: Configuration) -> str:
        """Names a configuration's files: everything that makes its answers what they are."""
        checkpoint = self.checkpoint
        facts = {
            **asdict(configuration),
            "model": checkpoint.name,
            "revision": checkpoint.revision,
            "dtype": str(checkpoint.model.dtype),
            "attention": checkpoint.adapter.attention_implementation,
            "image_mode": checkpoint.image_mode,
            "batch_size": self.batch_size,
            "tasks": self.tasks,
            "limit": self.limit,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
        return f"{configuration.method}-{configuration.budget:.4f}-{digest}"

    def _record_folder(self, configuration: Configuration) -> Path:
        return self.out / "records" / self._identity(configuration)

    def _run_one(self, configuration: Configuration) -> Path:
        from swiftvlm_eval.results import import_run, write_record

        identity = self._identity(configuration)
        journal = Journal(self.out / "partial" / f"{identity}-{_code()}.jsonl")
        model = self.model_class(
            checkpoint=self.checkpoint,
            method=configuration.method,
            budget=configuration.budget,
            seed=configuration.seed,
            batch_size=self.batch_size,
            device=self.checkpoint.model.device.type,
            **configuration.options,
        )
        model.journal = journal
        results_file = self._evaluate(model, configuration, self.out / "lmms_eval" / identity)
        record, samples = import_run(results_file)
        path = write_record(record, samples, self._record_folder(configuration))
        journal.close()
        for left_by_other_code in journal.path.parent.glob(f"{identity}-*.jsonl"):
            left_by_other_code.unlink()
        return path

    def _evaluate(self, model: Any, configuration: Configuration, folder: Path) -> Path:
        """One lmms-eval run; returns its results file.

        Raises:
            RuntimeError: lmms-eval left no results.
        """
        from lmms_eval.evaluator import simple_evaluate
        from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
        from lmms_eval.utils import get_datetime_str

        stamp = get_datetime_str(timezone="UTC")
        tracker = EvaluationTracker(output_path=str(folder))
        results = simple_evaluate(
            model=model,
            tasks=list(self.tasks),
            batch_size=self.batch_size,
            limit=self.limit,
            log_samples=True,
            task_manager=self.task_manager,
            verbosity="WARNING",
            datetime_str=stamp,
            torch_random_seed=configuration.seed,
        )
        if results is None:
            raise RuntimeError(f"{configuration.label}: lmms-eval returned no results")
        arguments = {
            "pretrained": self.checkpoint.name,
            "method": configuration.method,
            "budget": configuration.budget,
            "seed": configuration.seed,
            **configuration.options,
        }
        results["config"]["model"] = f"swiftvlm_{self.family_name}"
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
        found = sorted(folder.rglob("*_results.json"))
        if not found:
            raise RuntimeError(f"{configuration.label}: lmms-eval wrote no results file")
        return found[-1]


def _code() -> str:
    """Names the code that answers: one record never mixes answers of two commits or library versions."""
    facts = json.dumps([commit(), package_versions()], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:8]
