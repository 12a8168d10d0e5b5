"""What a run says of itself: one report per sample, and with the first sample of a task a description of the run.

Our model classes write them into lmms-eval's samples file, below the key `REPORT_KEY` of a sample's token counts, and
`results` reads them there. Every key stands here and nowhere else. Files of another version hold fewer keys, or
others: what is missing reads as None, what is unknown is kept (`model_extra`).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer

from swiftvlm_eval.runs.batch_size import Choice

REPORT_KEY = "swiftvlm"

# A count of tokens or rows; means over several prompts, as other writers may have them, are no whole numbers.
Rows = int | float
RowRuns = tuple[tuple[Rows, int], ...]


class _Said(BaseModel):
    """Something said in a samples file; writes what was set, and reads what it knows."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the file: the keys that were set, in the order of the fields."""
        return self.model_dump(exclude_unset=True)


class RunDescription(_Said):
    """The run: model, method with all options, and how it was executed.

    Attributes:
        method: registered name.
        options: every option of the method.
        source_sha256: hash of the source file of a method from outside the package; None for a registered one.
        caveat: what a reader of its numbers must know; empty for most methods.
        budget: share of the visual tokens entering the decoder, in (0, 1].
        schedule: `exact` (the budget is met) or `paper` (published counts of the named budget).
        pretrained: name of the checkpoint, without folders of the machine.
        revision: its revision.
        family: a name in `models.families`.
        shape: sizes of the decoder by name.
        dtype: of weights and activations.
        device: name of the accelerator, or `cpu`.
        attn_implementation: attention kernel of the decoder.
        batch_size: prompts per batch.
        batch_size_choice: how `auto` chose it; None if it was given.
        image_mode: how images are prepared.
        system_prompt_sha256: start of the hash of the system sentence.
        seed: of methods that draw at random.
        world_size: processes that shared the documents.
        versions: packages by name.
        commit: of this code.
        planned_mean: planned visual rows per layer of the sample that carries the description; None of a run at large.
    """

    method: str | None = None
    options: dict[str, Any] | None = None
    source_sha256: str | None = None
    caveat: str = ""
    budget: float | None = None
    schedule: Any = None
    pretrained: str | None = None
    revision: str | None = None
    family: str | None = None
    shape: dict[str, int | None] | None = None
    dtype: str | None = None
    device: str | None = None
    attn_implementation: str | None = None
    batch_size: int | None = None
    batch_size_choice: Choice | None = None
    image_mode: str | None = None
    system_prompt_sha256: str | None = None
    seed: int | None = None
    world_size: int | None = None
    versions: dict[str, str] | None = None
    commit: str | None = None
    planned_mean: float | None = None

    def differences(self, other: "RunDescription") -> list[str]:
        """Keys in which two samples describe their run differently; `planned_mean` is a sample's own and no such."""
        ours, theirs = self.model_dump(), other.model_dump()
        keys = (ours.keys() | theirs.keys()) - {"planned_mean"}
        return sorted(key for key in keys if ours.get(key) != theirs.get(key))


class SampleReport(_Said):
    """What pruning did to one sample. FLOPs in units of 1e12, times in seconds.

    Attributes:
        failed: the model's numbers were not finite, so that the answer means nothing.
        error: why there is no answer, in files of other writers.
        image: names the sample's images by their pixels; None if it has none.
        visual_tokens: visual tokens that entered the decoder.
        text_tokens: text tokens of the prompt.
        rows_per_layer: visual rows that the decoder layers saw, run-length coded: (rows, layers).
        flops_t: the prefill as it was executed, decoder layers and selection.
        selection_flops_t: the selection's part, by kind of work.
        flops_paper_t: the prefill as the papers count it.
        attributed_mean: mean visual rows per layer as the method's own paper counts them, where that differs.
        prefill_s: until the first token; None where a batch shares its time, where other work went on beside it, or
            where the image's features were stored and the vision tower did not run.
        total_s: of the whole answer; likewise.
        halved_batches: how many batches ran out of memory before the one that this sample's answer is of, with this
            sample in front: the sum over samples is all of them. None of batches of one.
        run: the run; with the first sample of a task.
    """

    failed: bool | None = None
    image: str | None = None
    visual_tokens: int | None = None
    text_tokens: Rows | None = None
    rows_per_layer: Annotated[
        RowRuns | None, PlainSerializer(lambda runs: None if runs is None else [list(run) for run in runs])
    ] = None
    flops_t: float | None = None
    selection_flops_t: dict[str, float] | None = None
    flops_paper_t: float | None = None
    attributed_mean: float | None = None
    prefill_s: float | None = None
    total_s: float | None = None
    halved_batches: int | None = None
    run: RunDescription | None = None
    error: Any = None

    @property
    def is_failure(self) -> bool:
        """Whether the answer means nothing."""
        return bool(self.failed or self.error)

    @property
    def names_images(self) -> bool:
        """Whether it says anything of the sample's images; reports of early versions do not."""
        return "image" in self.model_fields_set

    @property
    def rows(self) -> list[float] | None:
        """Visual rows of every decoder layer; None if not reported."""
        if not self.rows_per_layer:
            return None
        return [float(count) for count, layers in self.rows_per_layer for _ in range(layers)]

    @property
    def mean_rows(self) -> float | None:
        """Mean visual rows per decoder layer; None if not reported."""
        if not self.rows_per_layer:
            return None
        total = sum(count * layers for count, layers in self.rows_per_layer)
        return float(total / sum(layers for _, layers in self.rows_per_layer))

    def on_processes(self, count: int) -> "SampleReport":
        """The report in a run of so many processes: a description that it carries says that number."""
        if self.run is None:
            return self
        return self.model_copy(update={"run": self.run.model_copy(update={"world_size": count})})


def run_lengths(rows: Sequence[int]) -> RowRuns:
    """[576, 576, 98, 98] -> ((576, 2), (98, 2))."""
    lengths: list[tuple[int, int]] = []
    for count in rows:
        if lengths and lengths[-1][0] == count:
            lengths[-1] = (count, lengths[-1][1] + 1)
        else:
            lengths.append((count, 1))
    return tuple(lengths)


def report_in(counts: Mapping[str, Any]) -> SampleReport:
    """The report in an answer's token counts; an empty one if there is none.

    Raises:
        ValueError: a value of it has another type than written above; names key and value.
    """
    said = counts.get(REPORT_KEY)
    return SampleReport.model_validate(said if isinstance(said, Mapping) else {})
