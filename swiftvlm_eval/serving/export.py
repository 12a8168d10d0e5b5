"""Writes the visual rows of images as safetensors, one file each, and a page that says how to hand them on."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from safetensors.torch import save

from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.models.images import image_digest
from swiftvlm_eval.pruning.contract import PruningMethod
from swiftvlm_eval.runs.provenance import checkpoint_name, package_versions
from swiftvlm_eval.serving.page import Exported, page
from swiftvlm_eval.serving.rows import STAND_INS, prompt_of, visual_rows

ENDING = ".safetensors"
FORMAT = "swiftvlm-eval visual rows 1"
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Request:
    """What is exported.

    Attributes:
        method: one that can be served.
        budget: as typed.
        share: the budget as a share of N.
        question: of all images; None where the rows must not depend on one.
        seed: of methods that draw.
    """

    method: PruningMethod
    budget: str
    share: float
    question: str | None = None
    seed: int = 0


def check_names(names: Sequence[str]) -> None:
    """Refuses images whose files would overwrite each other.

    Raises:
        ValueError: two have the same name, also where a file system does not tell capitals apart.
    """
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise ValueError(f"images={name!r}: two files of that name; allowed are files of different names")
        seen.add(name.casefold())


def export(
    checkpoint: Checkpoint,
    request: Request,
    images: Iterable[tuple[str, Image.Image]],
    out: Path,
    done: Callable[[str], object] = lambda name: None,
) -> list[Exported]:
    """Writes a file for every image, and `README.md`; all of them or, when something is wrong, none.

    Args:
        checkpoint: of any family.
        request: what is exported.
        images: names without folders, all different, and images; read one after the other.
        out: a new or an empty folder.
        done: called with the name of an image when its rows are there.

    Raises:
        ValueError: as `visual_rows`; the message names the image.
        OSError: the folder cannot be written.
    """
    new = not out.exists()
    unfinished = out / UNFINISHED
    unfinished.mkdir(parents=True)
    try:
        exported = []
        for name, image in images:
            exported.append(_export_one(checkpoint, request, name, image, unfinished))
            done(name)
        about = _common(checkpoint, request)
        (unfinished / "README.md").write_text(page(about, exported), encoding="utf-8")
        for file in sorted(unfinished.iterdir()):
            file.replace(out / file.name)
        unfinished.rmdir()
    except BaseException:
        shutil.rmtree(out if new else unfinished, ignore_errors=True)
        raise
    return exported


def _export_one(checkpoint: Checkpoint, request: Request, name: str, image: Image.Image, folder: Path) -> Exported:
    """Writes one image's file."""
    try:
        rows = visual_rows(checkpoint, request.method, request.share, image, request.question, seed=request.seed)
    except ValueError as error:
        raise ValueError(f"image={name}: {error}") from error
    metadata = {
        **_common(checkpoint, request),
        "image": name,
        "image_digest": str(image_digest([image])),
        "visual_tokens_before": str(rows.before),
        "visual_tokens_after": str(len(rows.states)),
    }
    file = f"{name}{ENDING}"
    content = save({"image_embeds": rows.states.contiguous()}, metadata=metadata)
    (folder / file).write_bytes(content)
    return Exported(file, name, rows.before, len(rows.states), rows.states.shape[1])


def _common(checkpoint: Checkpoint, request: Request) -> dict[str, str]:
    """What is said of every file; no folder of this machine is named."""
    method = request.method.for_model(checkpoint.adapter)
    return {
        "format": FORMAT,
        "software": f"swiftvlm-eval {package_versions().get('swiftvlm-eval', 'unknown')}",
        "model": checkpoint_name(checkpoint.name, in_place=True),
        "revision": checkpoint.revision or "",
        "content": checkpoint.content,
        "family": checkpoint.family,
        "dtype": str(checkpoint.model.dtype).removeprefix("torch."),
        "image_mode": checkpoint.image_mode_in_force,
        "method": method.name,
        "options": json.dumps(method.options, default=str, sort_keys=True),
        "method_source_sha256": method.source_sha256 or "",
        "budget": request.budget,
        "share": repr(request.share),
        "seed": str(request.seed),
        "positions": "compact",
        "question": request.question or "",
        "same_for_every_question": "not looked at" if request.question else "yes",
        "prompt": prompt_of(checkpoint, request.question or STAND_INS[0]),
    }
