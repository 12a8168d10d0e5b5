"""The demo: what the terminal shows, what the folder holds, and what a second call leaves alone."""

import json
from pathlib import Path

import pytest
from command_line import run
from PIL import Image

from swiftvlm_eval.cli.demo import README, pictures_in, write_readme


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("demo") / "run"
    options = ("--limit", "2", "--methods", "vanilla,fastv,swiftvlm+fastv", "--budgets", "1/3")
    status, output, _ = run("demo", "--output_path", str(out), *options, columns=100)
    assert status == 1, output  # fastv cannot follow swiftvlm
    return out, output.splitlines()


def test_the_terminal_has_a_line_for_each_configuration_and_no_bars_of_others(demo: tuple[Path, list[str]]) -> None:
    out, lines = demo
    text = "\n".join(lines)
    assert "3 configurations" in lines[0] and str(out / "logs") in lines[0]
    assert [line.split(" ")[0] for line in lines if line[1:3] == "/3"] == ["1/3", "2/3", "3/3"]
    assert "1/3 vanilla 1 done in " in text and "left" in text and "swiftvlm+fastv 0.333 refused: " in text
    for foreign in ("it/s", "Postprocessing", "100%|", "INFO"):
        assert foreign not in text
    (log, *_) = sorted((out / "logs").iterdir())
    assert "Postprocessing: 100%" in log.read_text(encoding="utf-8")


def test_the_table_fits_and_the_last_line_says_what_to_open(demo: tuple[Path, list[str]]) -> None:
    out, lines = demo
    own = [line for line in lines if str(out) not in line and "refused" not in line]
    assert max(map(len, own)) <= 100
    assert any(line.split()[:1] == ["fastv"] and "33.3 %" in line for line in lines)
    assert lines[-1] == f"Open {out / 'leaderboard' / 'index.html'} in a browser."
    assert (out / "leaderboard" / "index.html").is_file()


def test_the_picture_has_every_method_and_the_readme_names_it(demo: tuple[Path, list[str]]) -> None:
    out, lines = demo
    assert any(str(out / "kept" / "side_by_side.png") in line for line in lines)
    shown = json.loads((out / "kept" / "show.json").read_text(encoding="utf-8"))
    assert [one["method"] for one in shown["methods"]] == ["vanilla", "fastv", "swiftvlm+fastv"]
    assert shown["source"] == "demo_refcoco, document 0" and shown["methods"][2]["refused"]
    with Image.open(out / "kept" / "side_by_side.png") as picture:
        assert picture.width > 300
    readme = (out / "README.md").read_text(encoding="utf-8")
    for name in ("leaderboard/index.html", "kept/side_by_side.png", "records", "lmms_eval", "logs"):
        assert f"`{name}" in readme and (out / name).exists()


def test_earlier_pictures_make_room_and_files_of_others_stay(demo: tuple[Path, list[str]], tmp_path: Path) -> None:
    kept = demo[0] / "kept"
    assert {path.name for path in pictures_in(kept)} == {path.name for path in kept.iterdir()}
    assert pictures_in(tmp_path) == [] == pictures_in(tmp_path / "none")
    names = [{"stages": [{"picture": "../../outside.png"}]}]
    (tmp_path / "show.json").write_text(json.dumps({"methods": names}))
    assert all(path.parent == tmp_path for path in pictures_in(tmp_path))


def test_a_folder_of_somebody_else_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "index.html").write_text("mine")
    status, _, output = run("demo", "--out", str(tmp_path))
    assert status == 1 and "holds something else than the demo's pictures" in output
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_readme_of_somebody_else_stays(tmp_path: Path) -> None:
    write_readme(tmp_path)
    first = (tmp_path / "README.md").read_text()
    assert first.startswith(README.partition("\n")[0])
    write_readme(tmp_path)
    assert (tmp_path / "README.md").read_text() == first
    (tmp_path / "README.md").write_text("mine")
    write_readme(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
