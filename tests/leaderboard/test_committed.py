"""The committed leaderboards are what the committed records and published numbers give, byte for byte."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (".md", ".csv", ".json", ".html", ".svg")


def test_committed_pages_are_regenerated_to_the_byte(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_leaderboards", ROOT / "scripts" / "make_leaderboards.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = {path.relative_to(tmp_path): path for path in script.regenerate(tmp_path)}
    assert Path("papers/index.md") in made
    for name, path in made.items():
        committed = ROOT / "leaderboards" / name
        assert committed.is_file(), f"{name} is not committed: run make leaderboard"
        if path.suffix in TEXT:  # pictures as pixels may differ with the font library
            assert committed.read_bytes() == path.read_bytes(), f"{name} is out of date: run make leaderboard"
    for folder in {name.parent for name in made}:
        pages = {path.name for path in (ROOT / "leaderboards" / folder).glob("*.md")}
        assert pages == {name.name for name in made if name.parent == folder and name.suffix == ".md"}
