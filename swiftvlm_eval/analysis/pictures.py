"""Pictures of what a method keeps of an image, stage by stage.

with prune(model, make_method("swiftvlm"), budget="1/3") as session:
    model.generate(**inputs)
picture(session, image).save("kept.png")
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from swiftvlm_eval.analysis.drawing import MarkedBox, below, beside, draw_view, text_block
from swiftvlm_eval.analysis.moments import Moment, moments
from swiftvlm_eval.models.families import family_of
from swiftvlm_eval.models.images import CLIP_MEAN_COLOUR, ImageMode
from swiftvlm_eval.models.layout import VisualLayout
from swiftvlm_eval.models.placement import Rectangle, image_layout, patch_rectangles, vision_pixels
from swiftvlm_eval.pruning.engine import PruningSession


@dataclass(frozen=True)
class StagePicture:
    """What one sample's visual rows show between two edits.

    Attributes:
        moment: the rows.
        views: a picture of every view of every image: of LLaVA-NeXT the base view and the tiled fine view.
        names: of the views, for people; empty where there is only one.
        newlines: kept newline tokens and all newline tokens; they show no patch.
        on_padding: kept tokens that show nothing of the image.
    """

    moment: Moment
    views: tuple[Image.Image, ...]
    names: tuple[str, ...]
    newlines: tuple[int, int]
    on_padding: int

    @property
    def caption(self) -> str:
        """What the picture shows, in one sentence."""
        moment = self.moment
        said = [f"{moment.place}: {len(moment.kept)} of {moment.num_visual} tokens"]
        if moment.others:
            said.append(f"{moment.others} rows that stand for no single token")
        if moment.returned:
            said.append(f"{len(moment.returned)} came back")
        if self.newlines[1]:
            said.append(f"{self.newlines[0]} of {self.newlines[1]} newline tokens")
        if self.on_padding:
            said.append(f"{self.on_padding} on padding")
        return f"{', '.join(said)}; {moment.layers}"

    @property
    def image(self) -> Image.Image:
        """All views from left to right; under each its name, where there are several."""
        if len(self.views) == 1:
            return self.views[0]
        pairs = zip(self.views, self.names, strict=True)
        return beside([below([view, text_block(name, view.width, 13)]) for view, name in pairs])

    @property
    def captioned(self) -> Image.Image:
        """The picture with its caption below."""
        image = self.image
        return below([image, text_block(self.caption, max(image.width, 200), 13)])


def stage_pictures(
    session: PruningSession,
    images: Image.Image | Sequence[Image.Image],
    *,
    sample: int = 0,
    placement: str = "pad",
    boxes: Sequence[MarkedBox] = (),
) -> list[StagePicture]:
    """A picture for every edit of a sample in the session's last prefill; one with all tokens if there was none.

    Args:
        session: after a prefill.
        images: of the sample, as they were before any processor.
        sample: its number in the batch (beams of a sample stand one after the other).
        placement: how the image went into the encoder, see `models.placement`.
        boxes: on the first image.

    Raises:
        ValueError: no such sample or no prefill yet, no visual tokens, images that do not make the sample's tokens, or
            a placement that the model does not have.
    """
    if not 0 <= sample < len(session.traces):
        raise ValueError(f"sample={sample}: the last prefill had {len(session.traces)} samples")
    trace, own = session.traces[sample], [images] if isinstance(images, Image.Image) else list(images)
    shown = moments(trace)
    sizes = [image.size for image in own]
    layout = image_layout(session.adapter, sizes, trace.num_visual)
    pixels, patch = vision_pixels(session.adapter)
    rectangles = patch_rectangles(layout, sizes, pixels=pixels, patch=patch, placement=placement)
    return [_picture(moment, own, layout, rectangles, placement, boxes) for moment in shown]


def _picture(
    moment: Moment,
    images: Sequence[Image.Image],
    layout: VisualLayout,
    rectangles: Sequence[Rectangle | None],
    placement: str,
    boxes: Sequence[MarkedBox],
) -> StagePicture:
    names, numbers = _view_names(layout)
    newline = {index for index, rectangle in enumerate(rectangles) if rectangle is None}
    view_of, kept = layout.view.tolist(), set(moment.kept)
    views, hidden = [], 0
    for view, number in enumerate(numbers):
        image = images[number]
        patches = {i: rect for i, rect in enumerate(rectangles) if rect is not None and view_of[i] == view}
        if not patches and view:  # unpadding leaves nothing of a very narrow image
            continue
        hidden += sum(_outside(patches[index], image) for index in kept & patches.keys())
        marked = boxes if number == 0 else ()
        background = CLIP_MEAN_COLOUR if placement == "pad" else (0, 0, 0)
        views.append((draw_view(image, patches, kept, moment.returned, marked, background), names[view]))
    return StagePicture(
        moment=moment,
        views=tuple(view for view, _ in views),
        names=tuple(name for _, name in views) if len(views) > 1 else (),
        newlines=(len(kept & newline), len(newline)),
        on_padding=hidden,
    )


def _view_names(layout: VisualLayout) -> tuple[list[str], list[int]]:
    """Of every view its name, and its image's number."""
    names, numbers = [], []
    for number, tiling in enumerate(layout.tilings):
        prefix = f"image {number + 1}, " if len(layout.tilings) > 1 else ""
        names.append(f"{prefix}base view" if tiling is not None else f"image {number + 1}")
        numbers.append(number)
        if tiling is not None:
            names.append(f"{prefix}fine view, {tiling[0]} x {tiling[1]} tiles")
            numbers.append(number)
    return names, numbers


def _outside(rectangle: Rectangle, image: Image.Image) -> bool:
    """Whether a patch shows nothing of the image; edges that only touch it show nothing."""
    x1, y1, x2, y2 = (round(value, 6) for value in rectangle)
    return x2 <= 0 or y2 <= 0 or x1 >= image.width or y1 >= image.height


def picture(
    session: PruningSession,
    image: Image.Image | Sequence[Image.Image],
    *,
    sample: int = 0,
    image_mode: ImageMode = "pad",
) -> Image.Image:
    """What the session's method kept of an image: its stages from left to right, each with a caption.

    Args:
        session: of `prune`, after a prefill; also when its block has been left.
        image: the sample's image, or its images in order, as they were before any processor.
        sample: its number in the batch.
        image_mode: how LLaVA-1.5 was shown the image: padded to a square (`pad`), or its centre (`hf_default`, the
            crop of the default processor). LLaVA-NeXT has one way.

    Raises:
        ValueError: as `stage_pictures`, or an unknown image mode.
    """
    if image_mode not in ("pad", "hf_default"):
        raise ValueError(f"image_mode={image_mode!r}: allowed are pad, hf_default")
    one_grid = family_of(session.adapter.family).one_grid
    placement = {"pad": "pad", "hf_default": "crop"}[image_mode] if one_grid else "anyres"
    stages = stage_pictures(session, image, sample=sample, placement=placement)
    return beside([stage.captioned for stage in stages])
