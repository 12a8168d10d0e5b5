"""Pictures of kept tokens: which pixels are clear, on tiny models and against positions worked out by hand.

A tiny LLaVA sees 56 x 56 pixels in 4 x 4 patches. An image of 120 x 60 padded to 120 x 120 has 30 rows of padding
above, and a patch is 30 pixels: patch rows 1 and 2 show the image. A picture is 480 pixels wide, four for each of the
image's, so that token t of row r and column c covers the pixels from (120 c, 120 r) to (120 c + 120, 120 r + 120).
"""

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from swiftvlm_eval import make_method, picture, prune
from swiftvlm_eval.analysis.drawing import PREDICTED, RETURNED, TRUE, MarkedBox, draw_view, font, text_block
from swiftvlm_eval.analysis.moments import Moment, moments
from swiftvlm_eval.analysis.pictures import stage_pictures
from swiftvlm_eval.pruning.contract import PruningMethod, RowEdit, Signals
from swiftvlm_eval.pruning.engine import PruningSession
from swiftvlm_eval.pruning.schedule import Plan
from swiftvlm_eval.pruning.trace import SampleTrace, StageTrace
from swiftvlm_eval.pruning.work import PromptWork, Work
from swiftvlm_eval.testing.tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next

CHOICES: dict[str, list[int]] = {}
"""What `Chosen` keeps, by test: a method whose choice is known without asking it."""


@dataclass(frozen=True, kw_only=True)
class Chosen(PruningMethod):
    """Keeps the tokens that the test says."""

    name: ClassVar[str] = "chosen"
    title: ClassVar[str] = "Chosen"
    source: ClassVar[str] = "baseline"
    summary: ClassVar[str] = "keeps what a test says"
    default_layers: ClassVar[tuple[int, ...]] = (2,)

    def select(self, signals: Signals) -> RowEdit:
        return signals.keep(torch.tensor(CHOICES["kept"]))

    def work(self, prompt: PromptWork) -> Work:
        return Work()


def session_of(kept: list[int], image: Image.Image, anyres: bool = False) -> PruningSession:
    """A session after one prefill in which those tokens were kept after layer 2."""
    model, processor = (tiny_llava_next if anyres else tiny_llava)()
    inputs = make_inputs(processor, image)
    total = int((inputs["input_ids"] == model.config.image_token_id).sum())
    CHOICES["kept"] = kept
    method = Chosen(layers=(2,), counts=(len(kept),))
    with prune(model, method) as session, torch.inference_mode():
        model(**inputs)
    assert session.traces[0].num_visual == total
    return session


def clear(drawn: Image.Image, image: Image.Image, x: float, y: float) -> bool:
    """Whether the picture has the image's own colour there; an image of one colour."""
    colour = np.array(drawn.getpixel((int(x), int(y))), dtype=int)
    return bool(np.abs(colour - np.array(image.getpixel((0, 0)), dtype=int)).max() < 8)


RED = Image.new("RGB", (120, 60), (250, 10, 10))


def test_under_padding_the_kept_patches_are_clear_and_no_other_pixel_is() -> None:
    session = session_of([0, 5, 10], RED)  # row 0 column 0 is padding; row 1 column 1; row 2 column 2
    (stage,) = stage_pictures(session, RED)
    (view,) = stage.views
    assert view.size == (480, 480)
    pixels = np.asarray(view).astype(int)
    red = (np.abs(pixels - [250, 10, 10]).max(axis=-1) < 8).nonzero()
    expected = np.zeros((480, 480), dtype=bool)
    expected[120:240, 120:240] = expected[240:360, 240:360] = True
    assert set(zip(*red, strict=True)) == set(zip(*expected.nonzero(), strict=True))
    assert (pixels[:120, :120] == [122, 116, 104]).all()  # padding, as the model sees it
    assert (pixels[:120, 120:] != [122, 116, 104]).any(axis=-1).all()
    assert stage.on_padding == 1
    assert stage.caption == "after layer 2: 3 of 16 tokens, 1 on padding; layers 3 to 16"


def test_the_centre_crop_leaves_the_ends_of_the_image_unseen() -> None:
    session = session_of([0, 15], RED)
    (stage,) = stage_pictures(session, RED, placement="crop")
    (view,) = stage.views
    # the crop is the square from x = 30 to 90, a patch is 15 pixels, the picture has four pixels for one
    assert view.size == (480, 240)
    assert clear(view, RED, 4 * 37, 4 * 7)
    assert clear(view, RED, 4 * 82, 4 * 52)
    for x, y in [(10, 7), (110, 52), (28, 7), (47, 7), (37, 17), (92, 58)]:
        assert not clear(view, RED, 4 * x, 4 * y)


def test_the_views_of_next_by_hand() -> None:
    """112 x 56 fills two tiles side by side: a base view of 28 x 14 pixels a patch, a fine one of 14 x 14."""
    image = Image.new("RGB", (112, 56), (250, 10, 10))
    # tokens: 16 of the base view, then 4 rows of 8 and a newline token
    session = session_of([1, 16 + 8, 16 + 9 + 6], image, anyres=True)
    assert session.traces[0].num_visual == 16 + 4 * 9
    (stage,) = stage_pictures(session, image, placement="anyres")
    base, fine = stage.views
    unit = 480 / 112
    assert clear(base, image, unit * 42, unit * 7)
    assert not clear(base, image, unit * 14, unit * 7)
    assert not clear(base, image, unit * 70, unit * 7)
    assert clear(fine, image, unit * (6 * 14 + 7), unit * 21)
    for x, y in [(5 * 14 + 7, 21), (7 * 14 + 7, 21), (6 * 14 + 7, 7), (6 * 14 + 7, 35)]:
        assert not clear(fine, image, unit * x, unit * y)
    assert stage.newlines == (1, 4)
    assert stage.names == ("base view", "fine view, 1 x 2 tiles")
    assert stage.caption == "after layer 2: 3 of 52 tokens, 1 of 4 newline tokens; layers 3 to 16"


@pytest.mark.parametrize("anyres", [False, True])
@pytest.mark.parametrize("name", ["vanilla", "random", "swiftvlm", "visionzip", "downsample"])
def test_every_kind_of_method_has_pictures(name: str, anyres: bool) -> None:
    """Also those that never look at the tower, whose trace has no layout."""
    model, processor = (tiny_llava_next if anyres else tiny_llava)()
    image = make_image(90, 70)
    with prune(model, make_method(name), None if name == "vanilla" else "1/2") as session, torch.inference_mode():
        model(**make_inputs(processor, image))
    drawn = picture(session, image)
    trace = session.traces[0]
    stages = stage_pictures(session, image, placement="anyres" if anyres else "pad")
    assert len(stages) == max(1, len(trace.stages))
    assert drawn.width >= sum(stage.image.width for stage in stages)
    for stage, executed in zip(stages, trace.stages, strict=False):
        assert len(stage.moment.kept) + stage.moment.others == len(executed.index)


def traced(*stages: tuple[int, list[int]], num_visual: int = 6, layers: int = 8) -> SampleTrace:
    executed = [StageTrace(boundary, torch.tensor(index), num_visual, 0) for boundary, index in stages]
    return SampleTrace(num_visual, 5, 3, Plan(num_visual, layers), rows_per_layer=[1] * layers, stages=executed)


def test_moments_by_hand() -> None:
    found = moments(traced((2, [0, 4, -1, -1]), (4, [1, 4, 5, -1]), (5, [4, 5])))
    assert found == [
        Moment(2, 4, 6, (0, 4), (), 2),
        Moment(4, 5, 6, (1, 4, 5), (1, 5), 1),
        Moment(5, 8, 6, (4, 5), (), 0),
    ]
    assert [moment.layers for moment in found] == ["layers 3 to 4", "layer 5", "layers 6 to 8"]
    assert moments(traced()) == [Moment(0, 8, 6, (0, 1, 2, 3, 4, 5), (), 0)]
    assert moments(traced((0, [3])))[0].place == "before layer 1"


def test_what_cannot_be_pictured_is_refused() -> None:
    with pytest.raises(ValueError, match="no visual tokens"):
        moments(traced(num_visual=0))
    half = traced((2, [0]))
    half.rows_per_layer.pop()
    with pytest.raises(ValueError, match="7 of 8 layers"):
        moments(half)


def test_a_session_without_that_sample_or_image_is_refused() -> None:
    session = session_of([0], RED)
    with pytest.raises(ValueError, match="sample=1: the last prefill had 1 samples"):
        picture(session, RED, sample=1)
    with pytest.raises(ValueError, match="2 images: the visual tokens are of 1"):
        picture(session, [RED, RED])
    with pytest.raises(ValueError, match="image_mode='middle'"):
        picture(session, RED, image_mode="middle")  # type: ignore[arg-type]
    tiles = session_of([0], Image.new("RGB", (112, 56)), anyres=True)
    with pytest.raises(ValueError, match="52 visual tokens, but the images make"):
        picture(tiles, Image.new("RGB", (56, 56)))


def test_a_prompt_without_an_image_is_refused() -> None:
    model, processor = tiny_llava()
    inputs = processor.tokenizer("USER: Why? ASSISTANT:", return_tensors="pt")
    with prune(model, make_method("fastv"), "1/2") as session, torch.inference_mode():
        model(**inputs)
    with pytest.raises(ValueError, match="no visual tokens"):
        picture(session, RED)


PATCHES = {0: (0.0, 0.0, 30.0, 30.0), 1: (30.0, 0.0, 60.0, 30.0)}


def drawn_with(**marks: Any) -> Any:
    return np.asarray(draw_view(Image.new("RGB", (60, 30), (250, 10, 10)), PATCHES, **marks)).astype(int)


def colour_of(text: str) -> list[int]:
    return [int(text[start : start + 2], 16) for start in (1, 3, 5)]


def test_what_came_back_is_marked_inside_its_patch_only() -> None:
    plain, marked = drawn_with(kept=[0, 1]), drawn_with(kept=[0, 1], returned=[1])
    changed = (plain != marked).any(axis=-1)
    assert changed.any()
    assert not changed[:, :240].any()
    assert (marked[changed] == colour_of(RETURNED)).all()
    assert (marked[120, 240] == colour_of(RETURNED)).all()  # its left edge
    assert not changed[120, 360]  # its middle stays as it is


def test_the_boxes_stand_where_they_should() -> None:
    drawn = drawn_with(kept=[], boxes=[MarkedBox((10, 5, 20, 25), predicted=False)])
    true = (drawn == colour_of(TRUE)).all(axis=-1).nonzero()
    assert (true[0].min(), true[0].max(), true[1].min(), true[1].max()) == (40, 200, 80, 160)
    drawn = drawn_with(kept=[], boxes=[MarkedBox((10, 5, 20, 25), predicted=True)])
    dashes = (drawn == colour_of(PREDICTED)).all(axis=-1)
    assert dashes[40, 80] and dashes[40, 85] and not dashes[40, 95]  # a dash, then a gap
    assert (drawn[40, 95] == 255).all()


def test_text_is_wrapped_to_the_width_and_controls_nothing() -> None:
    short, long = text_block("two words", 300), text_block("many words " * 20, 300)
    assert short.width == long.width == 300
    assert long.height > 3 * short.height
    assert text_block("w" * 200, 300).height > short.height  # one word too long for a line
    assert text_block("\x1b[31mred\x07", 300).size == short.size
    assert np.asarray(text_block("", 300)).min() == 255


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    font.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'swiftvlm-eval\[eval\]'"):
        text_block("words", 100)
    font.cache_clear()
