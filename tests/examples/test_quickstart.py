"""The quickstart runs as written, and says what is so."""

import re
import runpy
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart.py"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the words of one run as `python quickstart.py FOLDER`, in this process."""
    folder = tmp_path_factory.mktemp("quick")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as words:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [str(SCRIPT), str(folder / "out")])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return folder / "out", words.getvalue()


def test_it_answers_unpruned_and_pruned(said: tuple[Path, str]) -> None:
    answers = re.findall(r"^(unpruned|swiftvlm): \[([\d., ]+)\]$", said[1], re.MULTILINE)
    assert [name for name, _ in answers] == ["unpruned", "swiftvlm"]
    assert all(len(box.split(",")) == 4 for _, box in answers)


def test_the_budget_is_met_and_the_first_layers_see_everything(said: tuple[Path, str]) -> None:
    rows = [float(number) for number in re.findall(r"each layer: \[(.*)\]", said[1])[0].split(",")]
    (mean,) = re.findall(r"^mean: ([\d.]+) of 144$", said[1], re.MULTILINE)
    assert len(rows) == 12 and rows[0] == 144
    assert sum(rows) / 12 == pytest.approx(float(mean), abs=0.05) and float(mean) == pytest.approx(48, abs=0.5)


def test_the_picture_is_there(said: tuple[Path, str]) -> None:
    with Image.open(said[0] / "kept.png") as kept:
        assert kept.width > 3 * 300  # three stages side by side


def test_the_comparison_adds_up(said: tuple[Path, str]) -> None:
    counts = {
        name: int(count) for name, count in re.findall(r"^(\w+): (\d+) of 30 boxes right$", said[1], re.MULTILINE)
    }
    only_swiftvlm, only_fastv = map(
        int, re.findall(r"only swiftvlm right: (\d+) - only fastv right: (\d+)", said[1])[0]
    )
    assert set(counts) == {"fastv", "swiftvlm"} and counts["swiftvlm"] - counts["fastv"] == only_swiftvlm - only_fastv
    assert min(counts.values()) > 5


def test_it_is_in_percent_format_and_every_cell_has_words_before_it() -> None:
    cells = re.split(r"^# %%", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    kinds = ["words" if cell.startswith(" [markdown]") else "code" for cell in cells]
    assert kinds == ["words", "code"] * 5 + ["words"] and len(kinds) == 11
    for cell, kind in zip(cells, kinds, strict=True):
        assert kind == "code" or all(line.startswith("#") for line in cell.splitlines()[1:] if line)
