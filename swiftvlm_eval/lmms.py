"""The lmms-eval model classes `swiftvlm_llava` and `swiftvlm_llava_next`, and one more name per method and family.

Requests in, answers out; what is pruned is decided by the method, and how by the engine.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.distributed
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from PIL import Image
from tqdm import tqdm
from transformers import LogitsProcessorList, StoppingCriteriaList

from swiftvlm_eval.efficiency.flops import PAPER_TEXT_TOKENS, prefill_flops
from swiftvlm_eval.efficiency.selection import executed_work, selection_flops
from swiftvlm_eval.first_token import FirstTokenClock, FirstTokenLogits
from swiftvlm_eval.models.checkpoint import Checkpoint, load_checkpoint
from swiftvlm_eval.models.families import visual_tokens_per_image
from swiftvlm_eval.models.images import image_digest
from swiftvlm_eval.models.prompts import SYSTEM_PROMPT, TEMPLATES, continuation_ids
from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, budget_in_words, parse_budget
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.pruning.registry import known_names, make_method
from swiftvlm_eval.pruning.trace import SampleTrace
from swiftvlm_eval.runs.provenance import checkpoint_name, commit, package_versions

DEFAULT_BUDGET = "1/3"
DEFAULT_MAX_NEW_TOKENS = 1024


@dataclass
class PrunedTokenCounts(TokenCounts):  # type: ignore[misc]
    """Token counts of an answer, with what pruning did to it; ends in lmms-eval's samples file."""

    report: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The stock counts and the key `swiftvlm`."""
        counts: dict[str, Any] = super().to_dict()
        return counts if self.report is None else {**counts, "swiftvlm": dict(self.report)}


class SwiftvlmLlava(lmms):  # type: ignore[misc]
    """LLaVA-1.5 with visual-token pruning.

    Args:
        pretrained: hub id, folder, or `demo`; default the 7B checkpoint of the family.
        revision: hub revision.
        method: pruning method, by name or as path/to/file.py:ClassName (which runs that file); default that of the
            model name.
        budget: mean visual tokens per layer: a share (1/3, 0.333, 33%), a count of a stated whole (640/2880) or, for
            images of 576 visual tokens, a count (192); default 1/3.
        dtype: auto, float16, bfloat16, float32.
        device: auto, cpu, cuda, cuda:N.
        batch_size: prompts per batch; 1 is the protocol of the published numbers.
        attn_implementation: sdpa, eager, flash_attention_2, flash_attention_3.
        image_mode: pad (the protocol) or hf_default.
        system_prompt: replaces the system sentence.
        device_map: passed to transformers; the decoder must stay on one device.
        seed: seeds methods that draw at random.
        rev: free text; lmms-eval's response cache tells runs apart by their arguments.
        checkpoint: an already loaded model, in place of `pretrained` and what belongs to it.
        options: options of the method (`swiftvlm-eval methods` lists them).

    Raises:
        ValueError: an unknown option or value; names the field, the value and what is allowed.
    """

    is_simple = True
    prefers_swiftvlm_tasks = True
    family: ClassVar[str] = "llava15"
    expected_visual_tokens: ClassVar[int | None] = REFERENCE_VISUAL_TOKENS
    default_pretrained: ClassVar[str] = "llava-hf/llava-1.5-7b-hf"
    preset_method: ClassVar[str] = "swiftvlm"

    def __init__(
        self,
        pretrained: str | None = None,
        revision: str | None = None,
        method: str | None = None,
        budget: str | int | float = DEFAULT_BUDGET,
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int | str = 1,
        attn_implementation: str = "sdpa",
        image_mode: Any = "pad",
        system_prompt: str = SYSTEM_PROMPT,
        device_map: str | None = None,
        seed: int | str = 0,
        max_batch_size: int | str | None = None,
        rev: str | None = None,
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.method = make_method(method or self.preset_method, options)
        self.budget = parse_budget(budget, self.expected_visual_tokens)
        self.batch_size_per_gpu = self._whole_number("batch_size", batch_size, 1)
        self.seed = self._whole_number("seed", seed, 0)
        self.system_prompt = system_prompt
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.checkpoint = checkpoint or load_checkpoint(
            pretrained or self.default_pretrained,
            revision=revision,
            dtype=dtype,
            device=self._own_device(device),
            attn_implementation=attn_implementation,
            image_mode=image_mode,
            device_map=device_map,
            before_weights=lambda config: parse_budget(budget, visual_tokens_per_image(config)),
        )
        visual_tokens = visual_tokens_per_image(self.checkpoint.model.config)
        self.budget = parse_budget(budget, visual_tokens)
        if self.checkpoint.family != self.family:
            raise ValueError(
                f"pretrained={self.checkpoint.name!r}: a {self.checkpoint.family} checkpoint; "
                f"allowed for this model name are {self.family} checkpoints"
            )
        language_model = self.checkpoint.model.config.text_config.model_type
        if language_model not in TEMPLATES:
            raise ValueError(
                f"language model {language_model!r}: no prompt is known; allowed are {', '.join(TEMPLATES)}"
            )
        self.render = TEMPLATES[language_model]
        if self.family == "llava15" and self.checkpoint.image_mode == "hf_default":
            logger.warning(
                "image_mode=hf_default: the model sees the centre crop, the grounding tasks score the padded square; "
                "a task of your own can use process_results_crop"
            )
        self.session = PruningSession(self.checkpoint.adapter, self.method, self.budget, self.seed)
        self.journal: Any = None
        self._described: set[str] = set()
        self._failing: set[str] = set()
        self._totals = {"samples": 0, "seconds": 0.0, "generated": 0, "visual": 0.0}
        words = budget_in_words(self.budget, visual_tokens)
        logger.info("{} on {}: method {}, budget {}", type(self).__name__, self.checkpoint.name, self.method, words)

    @staticmethod
    def _whole_number(option: str, value: int | str, least: int) -> int:
        if not str(value).isdecimal() or int(value) < least:
            raise ValueError(f"{option}={value!r}: allowed are whole numbers from {least}")
        return int(value)

    def _own_device(self, device: str) -> str:
        """With several processes on accelerators, each takes its own."""
        if device in ("auto", "cuda") and self.accelerator.num_processes > 1 and self.accelerator.device.type != "cpu":
            return str(self.accelerator.device)
        return device

    # what lmms-eval asks of a model

    @property
    def device(self) -> torch.device:
        """Where the model is; lmms-eval gathers results there."""
        device: torch.device = self.checkpoint.model.device
        return device

    @property
    def batch_size(self) -> int:
        """Prompts per batch."""
        return self.batch_size_per_gpu

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers of the model, in request order."""
        answers: dict[int, GenerationResult] = {}
        bar = tqdm(total=len(requests), disable=self.rank != 0, desc=f"{self.method.name} {self.budget:.3g}")
        with self.session.bound(), torch.inference_mode():
            for numbers in self._batches(requests):
                batch = [requests[number] for number in numbers]
                answers |= zip(numbers, self._answer(batch), strict=True)
                bar.update(len(numbers))
        bar.close()
        return [answers[number] for number in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[Any]:
        """Not offered: the benchmarks of token pruning are single-turn."""
        raise NotImplementedError("swiftvlm models answer single-turn tasks; multi-round tasks are not supported")

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Mean negative log-likelihood per token of each continuation, and whether it is the greedy one.

        A loss, not a likelihood: lmms-eval's multiple-choice tasks take the smallest. The pair is the `text` of a
        result, because lmms-eval 0.7.3 turns a bare pair into a string that its own scoring cannot read.
        """
        scored = []
        with self.session.bound(), torch.inference_mode():
            for request in tqdm(requests, disable=self.rank != 0, desc=f"{self.method.name} loglikelihood"):
                with self._naming([request]):
                    scored.append(self._loglikelihood(request))
        return scored

    def clean(self) -> None:
        """Totals over all processes into lmms-eval's throughput table; called once a run, on every process."""
        totals = [self._totals]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            totals = [{}] * torch.distributed.get_world_size()  # type: ignore[list-item]
            torch.distributed.all_gather_object(totals, self._totals)
        samples = sum(part["samples"] for part in totals)
        seconds = sum(part["seconds"] for part in totals)
        generated = int(sum(part["generated"] for part in totals))
        if self.rank == 0 and samples:
            log_metrics(
                total_elapsed_time=seconds,
                total_gen_tokens=generated,
                avg_speed=generated / seconds if seconds else 0.0,
                additional_metrics={
                    "n_samples": int(samples),
                    "mean_visual_tokens": sum(part["visual"] for part in totals) / samples,
                },
            )
        super().clean()

    # one batch

    def _batches(self, requests: Sequence[Instance]) -> Iterator[list[int]]:
        """Request numbers in batches of equal generation arguments; order is kept within these."""
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items(), key=str)), []).append(number)
        for numbers in groups.values():
            for start in range(0, len(numbers), self.batch_size_per_gpu):
                yield numbers[start : start + self.batch_size_per_gpu]

    def _naming(self, batch: Sequence[Instance]) -> "_Naming":
        return _Naming(", ".join(f"{request.args[-2]} doc_id {request.args[-3]}" for request in batch))

    def _document(self, request: Instance) -> Any:
        doc_id, task, split = request.args[-3:]
        return self.task_dict[task][split][doc_id]

    def _images(self, request: Instance, doc_to_visual: Callable[[Any], Any]) -> list[Image.Image]:
        visuals = doc_to_visual(self._document(request)) or []
        for visual in visuals:
            if not isinstance(visual, Image.Image):
                raise TypeError(f"visual of type {type(visual).__name__}: only images are supported")
        return list(visuals)

    def _answer(self, batch: Sequence[Instance]) -> list[GenerationResult]:
        with self._naming(batch):
            stored = [None if self.journal is None else self.journal.find(request) for request in batch]
            if all(stored):
                return [self._result(*answer) for answer in stored if answer]
            results = self._generate(batch)
            for request, result in zip(batch, results, strict=True):
                if self.journal is not None:
                    self.journal.add(request, result.text, result.token_counts.to_dict())
            return results

    def _result(self, text: str, counts: Mapping[str, Any]) -> GenerationResult:
        return GenerationResult(
            text,
            PrunedTokenCounts(counts.get("input_tokens"), counts.get("output_tokens"), None, counts.get("swiftvlm")),
        )

    def _generate(self, batch: Sequence[Instance]) -> list[GenerationResult]:
        images = [self._images(request, request.args[2]) for request in batch]
        prompts = [
            self.render(request.args[0], len(own), self.system_prompt)
            for request, own in zip(batch, images, strict=True)
        ]
        clock, first_logits = FirstTokenClock(self.device), FirstTokenLogits(len(batch))
        inputs = self.checkpoint.encode(prompts, images)
        self.session.sample_keys = [f"{request.args[-2]}/{request.args[-3]}" for request in batch]
        clock.start = clock.now()
        arguments = generation_arguments(batch[0].args[1])
        sequences = self.checkpoint.model.generate(
            **inputs,
            **arguments,
            pad_token_id=self.checkpoint.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([first_logits]),
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        seconds = clock.now() - clock.start
        prefill = None if clock.first_token is None else clock.first_token - clock.start
        results = []
        outcomes = zip(batch, images, first_logits.failed, strict=True)
        for number, (request, own, failed) in enumerate(outcomes):
            trace = self.session.traces[number * (len(self.session.traces) // len(batch))]
            emitted = self._emitted(sequences[number], inputs["input_ids"].shape[1])
            text = cut_at(
                self.checkpoint.tokenizer.decode(emitted, skip_special_tokens=True), batch[0].args[1].get("until")
            )
            times = (prefill, seconds) if len(batch) == 1 else (None, None)
            report = self._report(trace, request, own, failed, *times)
            counts = PrunedTokenCounts(trace.num_text + trace.num_visual, len(emitted), None, report)
            results.append(GenerationResult(text, counts))
            if not (request.metadata or {}).get("__padding_only__"):
                self._totals["samples"] += 1
                self._totals["seconds"] += seconds / len(batch)
                self._totals["generated"] += len(emitted)
                self._totals["visual"] += trace.mean_visual_tokens
        return results

    def _emitted(self, sequence: torch.Tensor, prompt_length: int) -> list[int]:
        """Token ids that the model produced, up to and with the end token."""
        ids: list[int] = sequence[prompt_length:].tolist()
        ends = self.checkpoint.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        for position, token in enumerate(ids):
            if token in ends:
                return ids[: position + 1]
        return ids

    def _loglikelihood(self, request: Instance) -> GenerationResult:
        context, doc_to_target, doc_to_visual = request.args[:3]
        # a choice comes with its delimiter in front, a target without
        given = isinstance(doc_to_target, str)
        target = doc_to_target if given else f" {doc_to_target(self._document(request))}"
        images = self._images(request, doc_to_visual)
        prompt = self.render(context, len(images), self.system_prompt)
        inputs = self.checkpoint.encode([prompt], [images])
        ids = continuation_ids(self.checkpoint.tokenizer, prompt, target.rstrip())
        continuation = torch.tensor([ids], device=self.device)
        self.session.sample_keys = [f"{request.args[-2]}/{request.args[-3]}"]
        prefill = self.checkpoint.model(**inputs, use_cache=True, logits_to_keep=1)
        logits = prefill.logits
        if len(ids) > 1:
            rest = self.checkpoint.model(
                input_ids=continuation[:, :-1], past_key_values=prefill.past_key_values, use_cache=True
            )
            logits = torch.cat([logits, rest.logits], dim=1)
        loss = torch.nn.functional.cross_entropy(logits[0].float(), continuation[0])
        greedy, finite = (logits[0].argmax(dim=-1) == continuation[0]).all(), logits.isfinite().all()
        loss, greedy, finite = torch.stack([loss, greedy.float(), finite.float()]).tolist()  # one wait for the device
        trace = self.session.traces[0]
        report = self._report(trace, request, images, not finite)
        counts = PrunedTokenCounts(trace.num_text + trace.num_visual, len(ids), None, report)
        return GenerationResult((loss, bool(greedy)), counts)

    # what a run leaves behind

    def _report(
        self,
        trace: SampleTrace,
        request: Instance,
        images: Sequence[Image.Image],
        failed: bool,
        prefill: float | None = None,
        total: float | None = None,
    ) -> dict[str, Any]:
        """What pruning did to one sample; the first sample of a task also describes the run."""
        shape, tower = self.checkpoint.adapter.decoder.shape, self.checkpoint.adapter.tower.shape
        overhead = sum(self.method.overhead_flops(trace.plan, shape.hidden_size).values()) if trace.num_visual else 0.0
        selection = selection_flops(self.method, executed_work(trace, tower), shape, tower)
        layers = prefill_flops(trace.rows_per_layer, trace.num_text, shape)
        attributed = self.method.attributed_plan(trace.plan) if trace.num_visual else None
        task = request.args[-2]
        if failed and task not in self._failing:
            self._failing.add(task)
            logger.warning("{} doc_id {}: logits are not finite; such samples count as failed", task, request.args[-3])
        report: dict[str, Any] = {
            "failed": failed,
            "image": image_digest(images),
            "visual_tokens": trace.num_visual,
            "text_tokens": trace.num_text,
            "rows_per_layer": run_lengths(trace.rows_per_layer),
            "flops_t": (layers + sum(selection.values())) / 1e12,
            "selection_flops_t": {item: flops / 1e12 for item, flops in selection.items()},
            "flops_paper_t": (prefill_flops(trace.rows_per_layer, PAPER_TEXT_TOKENS, shape) + overhead) / 1e12,
            "attributed_mean": None if attributed is None else attributed.mean_visual_tokens,
            "prefill_s": prefill,
            "total_s": total,
        }
        if task not in self._described:
            self._described.add(task)
            report["run"] = {**self.description, "planned_mean": trace.plan.mean_visual_tokens}
        return report

    @cached_property
    def description(self) -> dict[str, Any]:
        """The run, for the record: model, method with all options, and how it was executed."""
        return {
            "method": self.method.name,
            "options": self.method.options,
            "source_sha256": self.method.source_sha256,
            "budget": self.budget if self.method.name != "vanilla" else 1.0,
            "schedule": self.method.schedule,
            "pretrained": checkpoint_name(self.checkpoint.name, in_place=True),
            "revision": getattr(self.checkpoint.model.config, "_commit_hash", None) or self.checkpoint.revision,
            "family": self.family,
            "shape": asdict(self.checkpoint.adapter.decoder.shape),
            "dtype": str(self.checkpoint.model.dtype).removeprefix("torch."),
            "device": device_name(self.device),
            "attn_implementation": self.checkpoint.adapter.decoder.attention_implementation,
            "batch_size": self.batch_size_per_gpu,
            "image_mode": self.checkpoint.image_mode if self.family == "llava15" else "anyres",
            "system_prompt_sha256": hashlib.sha256(self.system_prompt.encode()).hexdigest()[:12],
            "seed": self.seed,
            "world_size": self.world_size,
            "versions": package_versions(),
            "commit": commit(),
        }


class SwiftvlmLlavaNext(SwiftvlmLlava):
    """LLaVA-NeXT with visual-token pruning; arguments as `SwiftvlmLlava`, budgets are shares of an image's tokens."""

    family: ClassVar[str] = "llava_next"
    expected_visual_tokens: ClassVar[int | None] = None
    default_pretrained: ClassVar[str] = "llava-hf/llava-v1.6-vicuna-7b-hf"


class _Naming:
    """Names the documents at work when something fails, because lmms-eval would not."""

    def __init__(self, documents: str) -> None:
        self.documents = documents

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            raise RuntimeError(f"{self.documents}: {error}") from error


def generation_arguments(gen_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` from a task's generation_kwargs; greedy unless the task asks for sampling."""
    sample = bool(gen_kwargs.get("do_sample", False)) and float(gen_kwargs.get("temperature") or 0) > 0
    arguments: dict[str, Any] = {
        "max_new_tokens": int(gen_kwargs.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS),
        "num_beams": int(gen_kwargs.get("num_beams") or 1),
        "do_sample": sample,
        "use_cache": True,
    }
    for option in ("temperature", "top_p", "top_k"):
        arguments[option] = gen_kwargs.get(option) if sample else None
    return arguments


def cut_at(text: str, until: str | Sequence[str] | None) -> str:
    """The answer up to the first stop string, stripped."""
    stops = [until] if isinstance(until, str) else list(until or [])
    text = text.strip()
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)].strip() if ends else text


def run_lengths(rows: Sequence[int]) -> list[list[int]]:
    """[576, 576, 98, 98] -> [[576, 2], [98, 2]]."""
    lengths: list[list[int]] = []
    for count in rows:
        if lengths and lengths[-1][0] == count:
            lengths[-1][1] += 1
        else:
            lengths.append([count, 1])
    return lengths


def device_name(device: torch.device) -> str:
    """The accelerator's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def __getattr__(name: str) -> type[SwiftvlmLlava]:
    """Classes such as `SwiftvlmLlava__fastv`: a family with the method preset."""
    base, _, method = name.partition("__")
    families = {cls.__name__: cls for cls in (SwiftvlmLlava, SwiftvlmLlavaNext)}
    if base not in families or method not in known_names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(name, (families[base],), {"preset_method": method, "__module__": __name__})
