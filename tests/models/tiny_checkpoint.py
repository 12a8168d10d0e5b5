"""The tiny random models as checkpoints: in memory, or as folders such as the hub serves them."""

from pathlib import Path
from typing import Any

from transformers import CLIPImageProcessor

from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.testing.tiny_models import tiny_llava, tiny_llava_next


def in_memory(family: str = "llava", name: str = "tiny", **sizes: Any) -> Checkpoint:
    """A private checkpoint in float32; `sizes` as in `tiny_llava`."""
    build = tiny_llava if family == "llava" else tiny_llava_next
    return Checkpoint(name, None, *build(**sizes, fresh=True))


def save(folder: Path, family: str = "llava", *, as_on_the_hub: bool = False, **sizes: Any) -> Path:
    """Writes a checkpoint folder.

    Args:
        folder: made if needed.
        family: llava or llava_next.
        as_on_the_hub: LLaVA-1.5 with the plain CLIP image processor, which crops what does not fit into a square.
        sizes: as in `tiny_llava`.
    """
    model, processor = (tiny_llava if family == "llava" else tiny_llava_next)(**sizes, fresh=True)
    if as_on_the_hub:
        side = model.config.vision_config.image_size
        processor.image_processor = CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
