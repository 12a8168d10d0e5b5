"""How long an evaluation takes on one GPU and how much memory it needs: estimates by arithmetic, not measurements.

Prefill is bound by arithmetic: FLOPs over what the GPU reaches. Decoding one prompt at a time is bound by the
launching of kernels, so that a step takes about the same time with every method. Reading images, writing files and
scoring are not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from swiftvlm_eval.models.shape import DecoderShape

CLIP_L_MACS = 24 * (577 * (4 * 1024**2 + 2 * 1024 * 4096) + 2 * 577**2 * 1024)
"""Multiply-accumulates of CLIP ViT-L/14 at 336 pixels on one square: projections, MLP and attention of 24 layers."""
CLIP_L_PARAMETERS = 304_000_000
VOCABULARY = 32_064
"""Of LLaVA-1.5-7B's language model, padded."""
HALF = 2
"""Bytes of a number in half precision."""
CUDA_CONTEXT = 600 * 2**20
"""Bytes that CUDA and its libraries take before any tensor."""


@dataclass(frozen=True)
class Gpu:
    """What is assumed of the GPU.

    Attributes:
        tflops: its peak in half precision as on the data sheet, two per multiply-accumulate (A100: 312).
        utilization: share of the peak that prefill reaches.
        step_ms: one decoding step of `generate` at batch 1, in milliseconds.
    """

    tflops: float
    utilization: float
    step_ms: float


@dataclass(frozen=True)
class Part:
    """Documents that are alike.

    Attributes:
        documents: how many.
        answer_tokens: of an answer, its end included.
    """

    documents: int
    answer_tokens: int


def document_seconds(prefill_tmacs: float, squares: int, answer_tokens: int, gpu: Gpu) -> float:
    """Seconds for one document.

    Args:
        prefill_tmacs: of the decoder with selection, in 10^12 multiply-accumulates.
        squares: images of 336 x 336 that the tower encodes.
        answer_tokens: tokens of the answer; the first one comes with the prefill.
        gpu: the machine.
    """
    macs = prefill_tmacs * 1e12 + squares * CLIP_L_MACS
    return 2 * macs / (gpu.tflops * 1e12 * gpu.utilization) + (answer_tokens - 1) * gpu.step_ms / 1000


def run_hours(prefill_tmacs: float, squares: int, parts: Sequence[Part], gpu: Gpu) -> float:
    """Hours for one configuration on all documents; arguments as of `document_seconds`."""
    seconds = sum(part.documents * document_seconds(prefill_tmacs, squares, part.answer_tokens, gpu) for part in parts)
    return seconds / 3600


def memory_gib(shape: DecoderShape, rows: int, squares: int) -> dict[str, float]:
    """Memory of an unpruned run at batch 1 in half precision, by item, in GiB.

    Args:
        shape: the decoder.
        rows: text and visual tokens of a prompt with its answer.
        squares: images that the tower encodes at once.

    Returns:
        `weights` (decoder, vocabulary in and out, tower), `cache` (keys and values), `activations` (of the
        largest layer, in decoder or tower) and `context`.
    """
    d, m, layers = shape.hidden_size, shape.intermediate_size, shape.num_layers
    parameters = layers * (d * (2 * shape.query_width + 2 * shape.key_width) + 3 * d * m) + 2 * VOCABULARY * d
    found = {
        "weights": HALF * (parameters + CLIP_L_PARAMETERS),
        "cache": HALF * 2 * layers * shape.key_width * rows,
        "activations": HALF * max(rows * (3 * m + 6 * d), squares * 577 * (2 * 4096 + 6 * 1024)),
        "context": CUDA_CONTEXT,
    }
    return {item: size / 2**30 for item, size in found.items()}
