"""`swiftvlm-eval show`: files, answers, boxes, and everything that is refused."""

import base64
import io
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import run
from PIL import Image, ImageFile

from swiftvlm_eval.analysis import asking
from swiftvlm_eval.analysis.asking import ask_of_image, ask_of_task
from swiftvlm_eval.analysis.show_files import file_names, side_by_side, write_pictures
from swiftvlm_eval.analysis.showing import Shown, method_name, predicted_box, show
from swiftvlm_eval.models.checkpoint import Checkpoint
from swiftvlm_eval.sweep import Configuration
from swiftvlm_eval.sweep.documents import Documents
from swiftvlm_eval.testing.tiny_models import make_image, tiny_llava, tiny_llava_next


@pytest.fixture(autouse=True, scope="module")
def documents_are_loaded_once() -> Iterator[None]:
    """lmms-eval takes seconds to list its tasks."""
    loaded = cache(lambda names: Documents(list(names)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "Documents", lambda names: loaded(tuple(names)))
        yield


def png(folder: Path, width: int = 120, height: int = 60) -> Path:
    path = folder / "scene.png"
    make_image(width, height).save(path)
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """The folder, exit status and words of one whole run; one of its methods cannot meet its layers."""
    out = tmp_path_factory.mktemp("show") / "pictures"
    status, _, said = run(
        *("show", "--model", "demo", "--task", "demo_refcoco", "--doc", "17", "--device", "cpu"),
        *("--methods", "vanilla,swiftvlm,fastv[layers=40]", "--out", str(out)),
    )
    return out, status, said


def facts(out: Path) -> Any:
    return json.loads((out / "show.json").read_text())


def test_every_method_and_stage_has_its_picture(drawn: tuple[Path, int, str]) -> None:
    out, _, _ = drawn
    assert sorted(path.name for path in out.iterdir()) == [
        "01-vanilla-1-stage-1.png",
        "02-swiftvlm-0.333-stage-1.png",
        "02-swiftvlm-0.333-stage-2.png",
        "02-swiftvlm-0.333-stage-3.png",
        "index.html",
        "show.json",
        "side_by_side.png",
    ]
    vanilla, swiftvlm, _ = facts(out)["methods"]
    assert [stage["kept"] for stage in vanilla["stages"]] == [list(range(144))]
    first, second, third = (stage["kept"] for stage in swiftvlm["stages"])
    returned = [stage["returned"] for stage in swiftvlm["stages"]]
    assert returned == [[], sorted(set(second) - set(first)), sorted(set(third) - set(second))]
    assert returned[1], "an example without a token that came back shows too little"
    assert 47.5 <= swiftvlm["mean_visual_tokens"] <= 48.5


def test_the_true_and_the_predicted_box_by_hand(drawn: tuple[Path, int, str]) -> None:
    """Document 17 is 196 x 131 pixels: padded to 196, so 32 rows stand above."""
    found = facts(drawn[0])
    assert found["images"] == [[196, 131]]
    assert found["true_box"] == [130, 5, 160, 34]
    for method in found["methods"][:2]:
        numbers = [float(number) for number in re.findall(r"[0-9.]+", method["answer"])]
        x1, y1, x2, y2 = (196 * number for number in numbers)
        left, top, right, bottom = x1, max(0, y1 - 32), x2, y2 - 32
        assert method["predicted_box"] == pytest.approx([left, top, right, bottom])
        shared = max(0, min(160, right) - max(130, left)) * max(0, min(34, bottom) - max(5, top))
        union = 30 * 29 + (right - left) * (bottom - top) - shared
        assert method["iou"] == pytest.approx(shared / union)
        assert method["scores"]["iou"] == pytest.approx(shared / union)


def test_a_method_that_cannot_run_is_marked_by_name(drawn: tuple[Path, int, str]) -> None:
    out, status, said = drawn
    assert status == 1
    assert "refused: " in said and "fastv[layers=40]" in said
    assert facts(out)["methods"][2]["refused"]
    assert facts(out)["methods"][2]["answer"] is None
    assert "Refused: " in (out / "index.html").read_text()


def test_the_page_is_whole_in_itself(drawn: tuple[Path, int, str]) -> None:
    out, _, _ = drawn
    page = (out / "index.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page) and "url(" not in page and "<script" not in page
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)\"", page)
    assert len(pictures) == 4
    for data in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (480, 480)
    assert page.count('alt="') == 4
    assert "right green star" in page


def test_nothing_is_overwritten(drawn: tuple[Path, int, str]) -> None:
    out, _, _ = drawn
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    arguments = ("show", "--model", "demo", "--task", "demo_refcoco", "--doc", "17", "--out", str(out))
    status, _, said = run(*arguments)
    assert status == 1 and "not an empty folder" in said
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


def test_a_question_of_ones_own_is_escaped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    question = "What is <script>alert(1)</script> here?"
    status, _, said = run(
        *("show", "--model", "demo", "--image", str(png(tmp_path)), "--question", question, "--device", "cpu"),
        *("--methods", "random", "--budget", "1/9", "--seed", "3", "--out", str(out)),
    )
    assert status == 0, said
    page = (out / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert str(tmp_path) not in page + (out / "show.json").read_text()
    assert facts(out)["source"] == "scene.png" and facts(out)["methods"][0]["seed"] == 3


BAD: list[tuple[tuple[str, ...], str]] = [
    (("--image", "{missing}", "--question", "Why?"), "no such file"),
    (("--image", "{text}", "--question", "Why?"), "cannot be read (not in a form that is known)"),
    (("--image", "{half}", "--question", "Why?"), "half.png: cannot be read"),
    (("--image", "{folder}", "--question", "Why?"), "no such file"),
    (("--image", "{image}", "--question", "  "), "question=' '"),
    (("--image", "{image}"), "given are image of task, doc, image, question"),
    (("--image", "{image}", "--question", "Why?", "--doc", "3"), "given are doc, image, question of"),
    ((), "given are none of"),
    (("--task", "demo_refcoco", "--doc", "100000"), "doc=100000: demo_refcoco has no such document; allowed are 0 to"),
    (("--task", "demo_refcoco", "--doc", "-1"), "doc=-1: demo_refcoco has no such document"),
    (("--task", "demo_refkoko", "--doc", "1"), "tasks=demo_refkoko: unknown to lmms-eval"),
    (("--task", "demo_gqa", "--doc", "1", "--methods", "fastvv"), "method='fastvv': unknown"),
    (("--task", "demo_gqa", "--doc", "1", "--budget", "1/3,2/9"), "budget='1/3,2/9'"),
    (("--image", "{image}", "--question", "Why?", "--budget", "192"), "192"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    whole = png(tmp_path, 300, 300).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    places = {
        "{missing}": "none.png",
        "{text}": "text.png",
        "{half}": "half.png",
        "{folder}": ".",
        "{image}": "scene.png",
    }
    typed = [str(tmp_path / places[word]) if word in places else word for word in arguments]
    status, out, said = run("show", "--model", "demo", *typed, "--out", str(tmp_path / "out"), "--device", "cpu")
    assert status == 1
    assert message in said
    assert said.startswith("error ") and not out.strip()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--image-mode", "middle", "'middle' is not one of 'pad', 'hf_default'"),
        ("--layout", "heap", "'heap' is not one of 'columns', 'rows'"),
    ],
)
def test_a_choice_that_is_none_is_a_usage_error(option: str, value: str, message: str, tmp_path: Path) -> None:
    asked = ("--task", "demo_gqa", "--doc", "1", "--out", str(tmp_path / "out"))
    status, _, said = run("show", "--model", "demo", *asked, option, value)
    assert status == 2 and message in said and not (tmp_path / "out").exists()


def test_half_an_image_is_refused_also_where_pillow_was_told_to_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = png(tmp_path, 300, 300)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ValueError, match="cannot be read"):
        asking.read_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_document_without_an_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.api.task import ConfigurableTask

    monkeypatch.setattr(ConfigurableTask, "doc_to_visual", lambda self, doc: [])
    with pytest.raises(ValueError, match="doc=3: no visual tokens, because this document of demo_gqa has no image"):
        ask_of_task("demo_gqa", 3)


def test_a_group_and_a_task_that_scores_choices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = SimpleNamespace(OUTPUT_TYPE="multiple_choice")
    leaves = {"both": {"one": None, "another": None}, "choices": {"choices": choices}}
    monkeypatch.setattr(asking, "Documents", lambda names: SimpleNamespace(tasks=leaves[names[0]]))
    with pytest.raises(ValueError, match="task=both: a group of several; allowed is one of another, one"):
        ask_of_task("both", 0)
    with pytest.raises(ValueError, match="task=choices: answers by multiple_choice; allowed are tasks with generated"):
        ask_of_task("choices", 0)


def test_a_document_is_asked_as_in_an_evaluation() -> None:
    asked = ask_of_task("demo_gqa", 5)
    assert asked.question.endswith("Answer the question using a single word or phrase.")
    assert asked.truth is None and asked.expected
    assert asked.scores(asked.expected) == {"exact_match": 1.0}
    assert asked.scores("nothing of the kind") == {"exact_match": 0.0}


def tiny(anyres: bool = False) -> Checkpoint:
    return Checkpoint("/home/somebody/tiny", None, *(tiny_llava_next if anyres else tiny_llava)(fresh=True))


def test_next_has_two_views_of_every_stage(tmp_path: Path) -> None:
    asked = ask_of_image(png(tmp_path), "Where is it?")
    grid = [Configuration("swiftvlm", 0.5, {"layers": "3:6:9"}), Configuration("vanilla", 1.0)]
    checkpoint = tiny(anyres=True)
    shown = show(checkpoint, asked, grid)
    assert [len(one.stages) for one in shown] == [3, 1]
    assert all(len(stage.views) == 2 for one in shown for stage in one.stages)
    out = tmp_path / "out"
    out.mkdir()
    files = write_pictures(out, checkpoint, asked, shown)
    assert len(files) == 7 and all(file.is_file() for file in files)
    page = (out / "index.html").read_text()
    assert page.count("fine view, ") >= 4
    assert "somebody" not in page + (out / "show.json").read_text()


def test_the_crop_is_drawn_where_the_processor_crops(tmp_path: Path) -> None:
    checkpoint = tiny()
    checkpoint.image_mode = "hf_default"
    checkpoint.processor.image_processor.do_pad = False
    asked = ask_of_image(png(tmp_path), "Where is it?")
    (one,) = show(checkpoint, asked, [Configuration("vanilla", 1.0)])
    (view,) = one.stages[0].views
    assert view.size == (480, 240)  # no padding, unlike 480 x 480
    grey = np.asarray(view).astype(int).std(axis=-1) < 1
    assert grey[:, :119].all() and grey[:, 361:].all() and not grey[:, 121:359].all()


def test_boxes_are_read_in_the_frame_that_the_model_saw() -> None:
    image = Image.new("RGB", (200, 100))
    answer = "[0.25, 0.50, 0.75, 0.75]"
    assert predicted_box(answer, [image], "pad") == (50, 50, 150, 100)  # of 200 x 200, 50 rows above
    assert predicted_box(answer, [image], "crop") == (75, 50, 125, 75)  # of the middle 100 x 100
    assert predicted_box("no box", [image], "pad") is None
    assert predicted_box(answer, [image, image], "pad") is None


def test_rows_lay_the_stages_side_by_side_and_columns_one_below_the_other() -> None:
    """Stages of plain colours, found again by colour in the whole picture."""
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    stages = [SimpleNamespace(captioned=Image.new("RGB", (90, 70), colour)) for colour in colours]
    cells = [Configuration("fastv", 0.5), Configuration("swiftvlm", 0.5)]
    shown = [
        Shown(cells[0], "a", tuple(stages[:1])),  # type: ignore[arg-type]
        Shown(cells[1], "b", tuple(stages[1:])),  # type: ignore[arg-type]
    ]
    asked = SimpleNamespace(question="Where?")

    def corners(layout: Any) -> list[tuple[int, int]]:
        whole = np.asarray(side_by_side(asked, shown, "heading", layout))  # type: ignore[arg-type]
        return [tuple(int(ends.min()) for ends in np.nonzero((whole == colour).all(-1))) for colour in colours]  # type: ignore[misc]

    fastv, second, third = corners("columns")
    assert fastv[0] == second[0] < third[0] and fastv[1] < second[1] == third[1]
    fastv, second, third = corners("rows")
    assert fastv[0] < second[0] == third[0] and fastv[1] == second[1] < third[1]


def test_names_tell_no_folders_and_are_distinct() -> None:
    outside = Configuration("/home/somebody/my methods/mine.py:Mine", 0.5)
    assert method_name(outside) == "mine.py:Mine"
    assert Shown(outside).label == "mine.py:Mine 0.5"
    assert method_name(Configuration("visionzip+../a/b.py:C[layers=3]", 0.5)) == "visionzip+b.py:C[layers=3]"
    stages: Any = (None, None)
    names = file_names([Shown(outside, stages=stages), Shown(outside, stages=stages)])
    assert names == [
        ["01-mine.py-Mine-0.5-stage-1.png", "01-mine.py-Mine-0.5-stage-2.png"],
        ["02-mine.py-Mine-0.5-stage-1.png", "02-mine.py-Mine-0.5-stage-2.png"],
    ]
