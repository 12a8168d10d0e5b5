"""Per-sample lines: the one file a statistic is computed from."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from swiftvlm_eval.results.bounds import Amount, Count, Score, one_line
from swiftvlm_eval.results.files import require_regular


class SampleLine(BaseModel):
    """One document of one task.

    Attributes:
        task: lmms-eval task name.
        doc_id: Row of the document after the task's filter.
        cluster_id: The image, which several documents may share; None if nobody names it. A document without an image
            is its own.
        group: What a task scores as one: MME's pair of questions, MMBench's question in all its rotations; else None.
            Files from before this field have it as `cluster_id`.
        stratum: Category within which a task averages (MME), else None.
        prediction: The answer that was scored.
        scores: Finite per-sample scores by metric.
        failed: The model reported that it could not answer.
        input_tokens: Prompt tokens, visual ones included.
        visual_tokens: Visual tokens entering the decoder.
        kept_visual_tokens: Mean visual rows per decoder layer.
        output_tokens: Generated tokens.
        prefill_s: Prefill time in seconds.
        total_s: Time of the whole answer in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str
    doc_id: Count
    cluster_id: str | None
    group: str | None = None
    stratum: str | None
    prediction: str
    scores: dict[str, Score]
    failed: bool
    input_tokens: Count | None
    visual_tokens: Count | None
    kept_visual_tokens: Amount | None
    output_tokens: Count | None
    prefill_s: Amount | None
    total_s: Amount | None


def encode_samples(samples: Iterable[SampleLine]) -> bytes:
    """Returns the lines as gzipped JSONL; equal samples give equal bytes (no time stamp in the gzip header)."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as stream:
        for sample in samples:
            stream.write(sample.model_dump_json().encode() + b"\n")
    return buffer.getvalue()


def read_samples(path: Path, sha256: str | None = None) -> Iterator[SampleLine]:
    """Reads a per-sample file.

    Args:
        path: A file written from `encode_samples`.
        sha256: The hash the record holds; None skips the check.

    Raises:
        ValueError: The file is missing, is not the one the record was written with, or a line is broken.
    """
    try:
        content = require_regular(path).read_bytes()
    except OSError as error:
        raise ValueError(f"per-sample file {path.name} cannot be read: {error.strerror}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"per-sample file {path.name} differs from the one its record was written with (SHA-256)")
    try:
        lines = gzip.decompress(content).splitlines()
        for line in lines:
            yield SampleLine.model_validate_json(line)
    except (OSError, EOFError, zlib.error, ValidationError) as error:
        raise ValueError(f"per-sample file {path.name} is broken: {one_line(error)}") from error
