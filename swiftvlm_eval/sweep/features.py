"""Whether a sweep encodes its images once: what that takes, whether it pays, and whether it fits."""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from datasets import Image

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.encode_once import EncodeOnce, maker_of, refuse_other_features, settled
from swiftvlm_eval.models.feature_folder import FeatureFolder
from swiftvlm_eval.models.feature_store import FeatureStore
from swiftvlm_eval.models.image_features import Part, parts_for
from swiftvlm_eval.pruning.registry import make_method
from swiftvlm_eval.sweep.configurations import Configuration

FeatureMode = Literal["auto", "memory", "folder", "off"]
GIB = 1 << 30
OFF = "image features: off"
EACH_ITS_OWN = "every configuration encodes its images itself"
IMAGE_NAMES = ("cluster_id", "imageId", "image_id")
"""Columns in which tasks name the image of a document that does not hold it."""


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Attributes:
        mode: `auto`, `memory` (there alone), `folder` (what does not fit into memory goes there) or `off`.
        memory: GiB of each process's memory.
        folder: GiB of the folder, of all processes together.
    """

    mode: FeatureMode = "auto"
    memory: float = 4.0
    folder: float = 16.0


@dataclass(frozen=True)
class Decision:
    """What became of it.

    Attributes:
        said: one line for people.
        parts: what is kept of an image; None if every configuration encodes its images itself.
        spills: what does not fit into memory goes to the folder.
    """

    said: str
    parts: frozenset[Part] | None = None
    spills: bool = False


def bytes_per_image(adapter: FamilyAdapter, parts: Collection[Part], itemsize: int) -> int:
    """The most that one image takes, in bytes.

    Args:
        adapter: the model.
        parts: what is kept.
        itemsize: bytes of one number.
    """
    shape, config = adapter.tower.shape, adapter.model.config
    side = int(config.vision_config.image_size)
    tilings = [
        (height // side) * (width // side) for height, width in getattr(config, "image_grid_pinpoints", None) or []
    ]
    inputs = 1 + max(tilings) if tilings else 1
    tensors = len({"features", "layer_input"} & set(parts)) + ("states" in parts) * (1 + len(adapter.tower.layers))
    numbers = tensors * (1 + shape.patches) * shape.hidden_size + ("pixels" in parts) * 3 * side * side
    return inputs * numbers * itemsize


def decide(
    wish: Wish,
    checkpoint: Checkpoint,
    grid: Sequence[Configuration],
    *,
    count: Callable[[], int],
    documents: int,
    batch_size: int | Literal["auto"],
    processes: int = 1,
) -> Decision:
    """Whether images are encoded once, and where their features are kept.

    Args:
        wish: as asked for.
        checkpoint: the model.
        grid: configurations that are to be run.
        count: finds out how many different images there are, at most; called if it matters.
        documents: of one configuration.
        batch_size: prompts per batch; alone in its batch a prompt is timed, unless its image is encoded already.
        processes: that share the documents.
    """
    if wish.mode == "off":
        return Decision(f"{OFF}; {EACH_ITS_OWN}")
    if wish.mode == "auto" and batch_size == 1:
        return Decision(
            f"{OFF}; {EACH_ITS_OWN}, since at batch size 1 answers are timed with the vision tower "
            "(--features memory encodes each image once and leaves times out)"
        )
    try:
        refuse_other_features(checkpoint)
    except ValueError as error:
        return Decision(f"{OFF} ({error}); {EACH_ITS_OWN}")
    needs = [make_method(cell.method, cell.options).needs for cell in grid]
    served = [parts for each in needs if (parts := parts_for(each)) is not None]
    images = count()
    if len(served) * documents <= images:
        return Decision(f"{OFF}; no image is met twice by the {len(served)} configurations to be run")
    room = int((wish.memory * processes + (0 if wish.mode == "memory" else wish.folder)) * GIB)
    without_states = [parts for parts in served if "states" not in parts]  # those of all layers are large
    sizes = []
    for kept in (served, without_states):
        parts = settled(frozenset[Part]().union(*kept))
        sizes.append(images * bytes_per_image(checkpoint.adapter, parts, checkpoint.model.dtype.itemsize))
        if len(kept) * documents > images and (sizes[-1] <= room or wish.mode != "auto"):
            others = len(grid) - len(kept)
            said = (
                f"image features: up to {images:,} images are encoded once for {len(kept)} configurations and take at "
                f"most {_size(sizes[-1])} of {_bounds(wish, processes)}; answers are not timed"
                f"{'; what does not fit is encoded anew' if sizes[-1] > room else ''}"
                f"{f'; the other {others} run the vision tower themselves' if others else ''}"
            )
            return Decision(said, parts, wish.mode != "memory")
    return Decision(
        f"{OFF}; those of up to {images:,} images take {_size(sizes[0])}, which does not fit into "
        f"{_bounds(wish, processes)} (--features-memory, --features-folder); {EACH_ITS_OWN}"
    )


def on_this_machine(wish: Wish, out: Path, processes: int) -> Wish:
    """The wish with bounds that this machine can keep, where nobody asked for others: `auto` alone.

    No more than a quarter of the machine's memory, shared by all processes, and half of what is free on the disk.

    Args:
        wish: as asked for.
        out: an existing folder on that disk.
        processes: that run here.
    """
    if wish.mode != "auto":
        return wish
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 4 / processes / GIB
    except (AttributeError, ValueError, OSError):  # a system that does not say
        memory = wish.memory
    return replace(
        wish, memory=min(wish.memory, memory), folder=min(wish.folder, shutil.disk_usage(out).free / 2 / GIB)
    )


def _bounds(wish: Wish, processes: int) -> str:
    """Both bounds for people."""
    memory = f"{wish.memory:.3g} GiB of memory" + (f" in each of {processes} processes" if processes > 1 else "")
    return memory if wish.mode == "memory" else f"{memory}, then {wish.folder:.3g} GiB of the folder `features`"


def _size(count: int) -> str:
    """Bytes for people."""
    for unit, size in (("TiB", GIB << 10), ("GiB", GIB), ("MiB", 1 << 20)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1024:.3g} KiB"


def open_store(decision: Decision, wish: Wish, checkpoint: Checkpoint, out: Path) -> EncodeOnce | None:
    """What encodes images once, as decided; entries of an interrupted call are found in `out/features`."""
    if decision.parts is None:
        return None
    folder = None
    if decision.spills and wish.folder > 0:
        folder = FeatureFolder(out / "features", maker_of(checkpoint, decision.parts), int(wish.folder * GIB))
    return EncodeOnce(checkpoint, FeatureStore(int(wish.memory * GIB), folder), decision.parts)


@contextmanager
def encoding_once(checkpoint: Checkpoint, once: EncodeOnce | None, needs: Collection[str]) -> Iterator[None]:
    """Lets a checkpoint take images from `once` in the block, if a method with such needs can do with them."""
    checkpoint.once = once if once is not None and once.serves(needs) else None
    try:
        yield
    finally:
        checkpoint.once = None


def count_images(tasks: Mapping[str, Any], limit: int | None) -> int:
    """Different images of the tasks' documents: at least as many as there are by their pixels.

    They are told apart by their files' bytes, or where documents hold no image by the column that names it; where
    there is neither, every document counts as one.

    Args:
        tasks: lmms-eval tasks by name.
        limit: documents of each that are asked.
    """
    found: set[tuple[str, object]] = set()
    for name, task in tasks.items():
        documents = task.eval_docs
        asked = range(len(documents) if limit is None else min(limit, len(documents)))
        columns = getattr(documents, "features", {})
        named = next((column for column in IMAGE_NAMES if column in columns), None)
        if any(isinstance(kind, Image) for kind in columns.values()):
            found |= {("", digest) for digest in _file_digests(documents.select(asked))}
        elif named:
            found |= {(name, image) for image in documents.select(asked)[named]}
        else:
            found |= {(name, number) for number in asked}
    return len(found)


def _file_digests(documents: Any) -> Iterator[bytes]:
    """A digest of every image file of a data set, none of which is decoded."""
    columns = [name for name, kind in documents.features.items() if isinstance(kind, Image)]
    files = documents.select_columns(columns)
    for column in columns:
        files = files.cast_column(column, Image(decode=False))
    for row in files:
        for file in filter(None, row.values()):
            content = file["bytes"] if file["bytes"] is not None else str(file["path"]).encode()
            yield hashlib.blake2b(content, digest_size=16).digest()
