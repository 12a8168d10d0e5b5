"""What lmms-eval asks of a model: its arguments, its answers to requests, and a class for every family and method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import chain
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from loguru import logger
from tqdm import tqdm

from swiftvlm_eval.lmms.answering import Answering
from swiftvlm_eval.lmms.batching import batches, estimated_lengths
from swiftvlm_eval.lmms.feeding import LOOK_AHEAD
from swiftvlm_eval.lmms.reporting import Reporting, describe_run
from swiftvlm_eval.lmms.sizing import Sizing
from swiftvlm_eval.models.checkpoint import Checkpoint, load_checkpoint
from swiftvlm_eval.models.families import family_of, visual_tokens_per_image
from swiftvlm_eval.models.prompts import FORMS, SYSTEM_PROMPT
from swiftvlm_eval.pruning.budget import REFERENCE_VISUAL_TOKENS, budget_in_words, parse_budget
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.runs.batch_size import LARGEST, read_batch_size
from swiftvlm_eval.runs.journal import Journal
from swiftvlm_eval.runs.report import RunDescription

DEFAULT_METHOD = "swiftvlm"
DEFAULT_BUDGET = "1/3"


class PrunedModel(lmms):  # type: ignore[misc]
    """A model family with visual-token pruning. `model_class` makes the classes that lmms-eval finds.

    Args:
        pretrained: hub id, folder, or `demo`; default the 7B checkpoint of the family.
        revision: hub revision.
        method: pruning method; default that of the model name.
        budget: mean visual tokens per layer: a share (1/3, 0.333, 33%), a count of a stated whole (640/2880) or, for
            images of 576 visual tokens, a count (192); default 1/3.
        dtype: auto, float16, bfloat16, float32.
        device: auto, cpu, cuda, cuda:N.
        batch_size: prompts per batch; 1 is the protocol of the published numbers, auto takes the largest power of two
            that fits.
        attn_implementation: sdpa, eager, flash_attention_2, flash_attention_3.
        image_mode: pad (the protocol) or hf_default; for LLaVA-1.5.
        system_prompt: replaces the system sentence.
        device_map: passed to transformers; the decoder must stay on one device.
        max_batch_size: the largest batch that auto may take; default 64.
        look_ahead: batches that threads prepare ahead of the model; default 2. With batch size 1 the default is 0,
            because seconds are recorded there, and are not if other work goes on beside them.
        seed: seeds methods that draw at random.
        rev: free text; lmms-eval's response cache tells runs apart by their arguments.
        checkpoint: an already loaded model, in place of `pretrained` and what belongs to it.
        journal: answers of an unfinished run, which are not made again; new ones are added.
        on_answers: called with the number of answers that were just given or found, in place of a progress bar.
        options: options of the method (`swiftvlm-eval methods` lists them).

    Raises:
        ValueError: an unknown option or value; names the field, the value and what is allowed.
    """

    is_simple = True
    prefers_swiftvlm_tasks = True
    family: ClassVar[str]
    preset_method: ClassVar[str] = DEFAULT_METHOD

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
        look_ahead: int | str | None = None,
        rev: str | None = None,
        checkpoint: Checkpoint | None = None,
        journal: Journal | None = None,
        on_answers: Callable[[int], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        family = family_of(self.family)
        self.method = make_method(method or self.preset_method, options)
        self.budget = parse_budget(budget, REFERENCE_VISUAL_TOKENS if family.one_grid else None)
        most = LARGEST if max_batch_size is None else _whole_number("max_batch_size", max_batch_size, 1)
        self.sizing = Sizing(read_batch_size(batch_size), most)
        alone = self.sizing.asked == 1
        usual = 0 if alone else LOOK_AHEAD
        self.look_ahead = usual if look_ahead is None else _whole_number("look_ahead", look_ahead, 0)
        self.seed = _whole_number("seed", seed, 0)
        self.system_prompt = system_prompt
        if journal is not None and not isinstance(journal, Journal):
            raise ValueError(f"journal={journal!r}: allowed is a Journal, which the command line cannot give")
        if on_answers is not None and not callable(on_answers):
            raise ValueError(f"on_answers={on_answers!r}: allowed is a function, which the command line cannot give")
        self.on_answers = on_answers
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.checkpoint = checkpoint or load_checkpoint(
            pretrained or family.default_checkpoint,
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
        render = self._conversation()
        self._warn_of_another_frame()
        self.session = PruningSession(self.checkpoint.adapter, self.method, self.budget, self.seed)
        self.method = self.session.method  # with the layers of this model
        self.reporting = Reporting(self.checkpoint, self.method, lambda: self.description)
        timed = alone and self.look_ahead == 0
        self.answering = Answering(
            self.session, self.checkpoint, render, self._document, self.reporting, journal, timed
        )
        words = budget_in_words(self.budget, visual_tokens)
        logger.info("{} on {}: method {}, budget {}", type(self).__name__, self.checkpoint.name, self.method, words)

    def _own_device(self, device: str) -> str:
        """With several processes on accelerators, each takes its own."""
        if device in ("auto", "cuda") and self.accelerator.num_processes > 1 and self.accelerator.device.type != "cpu":
            return str(self.accelerator.device)
        return device

    def _conversation(self) -> Callable[[str, int], str]:
        """User's text and number of images -> prompt, as the checkpoint was trained.

        Raises:
            ValueError: a checkpoint of another family, or one on a language model for which no prompt is known.
        """
        if self.checkpoint.family != self.family:
            raise ValueError(
                f"pretrained={self.checkpoint.name!r}: a {self.checkpoint.family} checkpoint; "
                f"allowed for this model name are {self.family} checkpoints"
            )
        prompts = family_of(self.family).prompts
        language_model = self.checkpoint.model.config.text_config.model_type
        if language_model not in prompts:
            raise ValueError(
                f"language model {language_model!r}: no prompt is known; allowed are {', '.join(prompts)}"
            )
        form = FORMS[prompts[language_model]]
        return lambda text, num_images: form(text, num_images, self.system_prompt)

    def _warn_of_another_frame(self) -> None:
        """Says so when the model answers with boxes in another frame than the grounding tasks score."""
        family, mode = family_of(self.family), self.checkpoint.image_mode_in_force
        if family.box_frames[mode] != family.box_frames[family.image_modes[0]]:
            logger.warning(
                f"image_mode={mode}: the model sees the centre crop, the grounding tasks score the padded square; "
                "a task of your own can use process_results_crop"
            )

    @property
    def device(self) -> torch.device:
        """Where the model is; lmms-eval gathers results there."""
        device: torch.device = self.checkpoint.model.device
        return device

    @property
    def batch_size(self) -> int | str:
        """Prompts per batch; `auto` until that is chosen."""
        return self.sizing.size or "auto"

    @cached_property
    def description(self) -> RunDescription:
        """The run, for the record."""
        return describe_run(
            self.checkpoint,
            self.method,
            budget=self.budget,
            batch_size=self.sizing.size or 1,
            batch_size_choice=self.sizing.choice,
            system_prompt=self.system_prompt,
            seed=self.seed,
            world_size=self.world_size,
        )

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers of the model, in request order."""
        answers: dict[int, GenerationResult] = {}
        with self._counted(len(requests), f"{self.budget:.3g}") as count, torch.inference_mode():
            lengths = cache(lambda: estimated_lengths(requests, self.checkpoint, self.task_dict))
            size = self.sizing.settled(self.answering, requests, lengths)
            missing = []
            for numbers in batches(requests, size, lengths):
                found = self.answering.stored([requests[number] for number in numbers])
                if found is None:
                    missing.append(numbers)
                else:
                    answers |= zip(numbers, found, strict=True)
                    count(len(numbers))
            self.reporting.expect([requests[number] for number in sorted(chain.from_iterable(missing))])
            asked = [[requests[number] for number in numbers] for numbers in missing]
            with self.answering.prepared(asked, self.look_ahead) as prepared:
                for numbers, batch in zip(missing, prepared, strict=True):
                    answers |= zip(numbers, self.answering.answer_or_halve(batch), strict=True)
                    count(len(numbers))
        return [answers[number] for number in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[Any]:
        """Not offered: the benchmarks of token pruning are single-turn."""
        raise NotImplementedError("swiftvlm models answer single-turn tasks; multi-round tasks are not supported")

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Mean negative log-likelihood per token of each continuation, and whether it is the greedy one.

        A loss, not a likelihood: lmms-eval's multiple-choice tasks take the smallest. The pair is the `text` of a
        result, because lmms-eval 0.7.3 turns a bare pair into a string that its own scoring cannot read.
        """
        results = []
        with self._counted(len(requests), "loglikelihood") as count, self.session.bound(), torch.inference_mode():
            for request in requests:
                results.append(self.answering.score(request))
                count(1)
        return results

    @contextmanager
    def _counted(self, total: int, what: str) -> Iterator[Callable[[int], object]]:
        """To be called with the number of new answers: `on_answers`, or else a bar of the first process."""
        if self.on_answers is not None:
            yield self.on_answers
            return
        with tqdm(total=total, disable=self.rank != 0, desc=f"{self.method.name} {what}") as bar:
            yield bar.update

    def clean(self) -> None:
        """Totals over all processes into lmms-eval's throughput table; called once a run, on every process."""
        self.reporting.log_totals(self.rank)
        super().clean()

    def _document(self, request: Instance) -> Any:
        doc_id, task, split = request.args[-3:]
        return self.task_dict[task][split][doc_id]


def _whole_number(option: str, value: int | str, least: int) -> int:
    if not str(value).isdecimal() or int(value) < least:
        raise ValueError(f"{option}={value!r}: allowed are whole numbers from {least}")
    return int(value)


def model_class(family: str, method: str | None = None) -> type[PrunedModel]:
    """The one lmms-eval model class of a family, or the one that presets a method of it.

    Args:
        family: a name in `models.families`.
        method: registered name.

    Raises:
        UnknownFamilyError: there is no such family.
    """
    return _made(family, method)


@cache
def _made(family: str, method: str | None) -> type[PrunedModel]:
    entry, module = family_of(family), {"__module__": "swiftvlm_eval.lmms"}
    if method is None:
        return type(entry.model_class, (PrunedModel,), {**module, "family": family, "__doc__": PrunedModel.__doc__})
    return type(f"{entry.model_class}__{method}", (_made(family, None),), {**module, "preset_method": method})
