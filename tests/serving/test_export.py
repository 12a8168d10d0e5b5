"""The command `export-embeddings`: its files, its page, and that it writes all or nothing."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import run
from PIL import Image
from safetensors import safe_open
from tiny_checkpoint import in_memory

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.models.checkpoint import load_checkpoint
from swiftvlm_eval.models.prompts import vicuna_v1
from swiftvlm_eval.serving.export import Request, export
from swiftvlm_eval.serving.page import Exported, page
from swiftvlm_eval.testing.tiny_models import make_image

QUESTION = "What colour is the circle?"


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "in" / "a.png", tmp_path / "in" / "b b.jpg"]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        make_image(150 - 30 * number, 110, seed=number).save(path)
    return [str(path) for path in paths]


def command(out: Path, *words: str) -> tuple[int, str, str]:
    return run("export-embeddings", "--model", "demo", "--device", "cpu", "--out", str(out), *words)


def test_a_file_for_every_image_says_how_it_was_made(tmp_path: Path, pictures: list[str]) -> None:
    out = tmp_path / "rows"
    status, _, said = command(out, "--budget", "1/3", "--seed", "3", "--images", *pictures)
    assert status == 0, said
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "a.png.safetensors", "b b.jpg.safetensors"]
    checkpoint = load_checkpoint("demo", device="cpu")
    for picture in map(Path, pictures):
        with safe_open(out / f"{picture.name}.safetensors", "pt") as file:
            rows, about = file.get_tensor("image_embeds"), file.metadata()
        assert rows.dtype == torch.float32 and rows.shape == (48, checkpoint.adapter.decoder.shape.hidden_size)
        assert (about["model"], about["content"], about["revision"]) == ("demo", checkpoint.content, "")
        assert (about["method"], about["budget"], about["seed"]) == ("visionzip", "1/3", "3")
        assert json.loads(about["options"]) == {"layers": None, "counts": None, "schedule": "exact"}
        assert (about["visual_tokens_before"], about["visual_tokens_after"]) == ("144", "48")
        assert (about["image"], about["dtype"], about["positions"]) == (picture.name, "float32", "compact")
        assert (about["question"], about["same_for_every_question"]) == ("", "yes")
        assert str(tmp_path) not in json.dumps(about)
    text = (out / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and text.count("UNTESTED") == 2
    assert "| `b b.jpg.safetensors` | 144 | 48 | 128 |" in text
    for block in python_blocks(text):
        compile(block, "README.md", "exec")


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_first_block_of_the_page_answers_as_the_method_does(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rows"
    assert command(out, "--question", QUESTION, "--images", pictures[0])[0] == 0
    text = (out / "README.md").read_text(encoding="utf-8")
    assert f"Made for one question: `{QUESTION}`" in text and "put its folder in the place of its name" in text
    block = python_blocks(text)[0]
    assert "name, revision = 'demo', None" in block
    monkeypatch.chdir(out)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block.replace("'demo'", repr(str(checkpoint_path()))), {})
    checkpoint = load_checkpoint("demo", device="cpu")
    inputs = checkpoint.encode([vicuna_v1(QUESTION)], [[Image.open(pictures[0])]])
    with prune(checkpoint.model, make_method("visionzip"), "1/3"), torch.inference_mode():
        ids = checkpoint.model.generate(**inputs, max_new_tokens=64, do_sample=False)
    answer = checkpoint.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert printed.getvalue().strip() == answer.strip() != ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--method", "fastv"), r"method='fastv': acts inside the decoder \(after layer 2\).* allowed are cdpruner, "),
        (("--method", "fastervlm[positions=keep]"), r"method='fastervlm\[positions=keep\]': keeps the position ids"),
        (("--method", "nothing"), "method='nothing': unknown"),
        (("--budget", "7"), "budget='7': allowed is"),
        (("--budget", "192"), "budget='192': allowed is .* are 144"),
        (("--budget", "1/1000"), "image=a.png: .*budget=0.001"),
        (("--method", "vanilla"), "image=a.png: budget=0.3333: vanilla drops no rows; allowed is 1"),
        (("--method", "cdpruner[relevance=embed]"), "image=a.png: question=None: cdpruner chooses other rows"),
        (("--question", " "), "question=' ': allowed is"),
    ],
)
def test_a_refusal_is_one_line_and_writes_nothing(
    tmp_path: Path, pictures: list[str], words: tuple[str, ...], says: str
) -> None:
    status, printed, said = command(tmp_path / "rows", *words, "--images", *pictures)
    assert status == 1 and printed == "" and re.search(f"^error {says}", said), said
    assert not (tmp_path / "rows").exists()


def test_images_that_cannot_be_read_or_told_apart(tmp_path: Path, pictures: list[str]) -> None:
    broken, double = tmp_path / "broken.png", tmp_path / "A.PNG"
    broken.write_bytes(Path(pictures[0]).read_bytes()[:2000])
    double.write_bytes(Path(pictures[0]).read_bytes())
    for bad, says in (
        (str(tmp_path / "none.png"), "none.png: no such file"),
        (str(broken), "broken.png: cannot be read"),
        (str(double), "images='A.PNG': two files of that name"),
    ):
        status, _, said = command(tmp_path / "rows", "--images", *pictures, bad)
        assert status == 1 and says in said and not (tmp_path / "rows").exists()


def test_a_folder_that_holds_something_stays_as_it_is(tmp_path: Path, pictures: list[str]) -> None:
    status, _, said = command(tmp_path / "in", "--images", pictures[0])
    assert status == 1 and "not an empty folder" in said
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["a.png", "b b.jpg"]


@pytest.mark.parametrize("there", [False, True])
def test_what_fails_at_the_second_image_leaves_no_file(tmp_path: Path, there: bool) -> None:
    out, request = tmp_path / "rows", Request(make_method("visionzip"), "1/2", 0.5)
    if there:
        out.mkdir()

    def images() -> Iterator[tuple[str, Image.Image]]:
        yield "a.png", make_image(60, 60)
        assert (out / ".unfinished" / "a.png.safetensors").exists()
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        export(in_memory("llava", grid=4), request, images(), out)
    assert out.exists() is there and (not there or not list(out.iterdir()))


def test_text_of_a_page_is_text() -> None:
    about = dict.fromkeys(("revision", "content", "dtype", "options", "budget", "seed", "image_mode"), "x")
    about |= {"model": "a/b", "family": "llava_next", "method": "m", "question": "one | two `@FILE@`\n# three"}
    text = page({**about, "prompt": 'USER: <image>\n@MODEL@ "quoted"'}, [Exported("c|d.safetensors", "c|d", 9, 4, 2)])
    assert "`one \\| two '@FILE@' # three`" in text and "| `c\\|d.safetensors` | 9 | 4 | 2 |" in text
    assert "29215" in text and "put its folder" not in text
    found: dict[str, object] = {}
    line = next(line for line in text.splitlines() if line.startswith("prompt = "))
    exec(line, found)
    assert found["prompt"] == 'USER: <image>\n@MODEL@ "quoted"'
