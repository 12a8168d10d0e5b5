"""Regenerates the committed leaderboards: the papers' tables, and the demo model's from its committed records."""

from pathlib import Path

from swiftvlm_eval.leaderboard import build

ROOT = Path(__file__).resolve().parents[1] / "leaderboards"


def regenerate(out: Path) -> list[Path]:
    """Writes both leaderboards below `out`; returns the files."""
    published = sorted((ROOT / "published").glob("*.yaml"))
    files = list(build([], out / "papers", published=published).files)
    records = ROOT / "demo" / "records"
    if records.is_dir():
        files += build([records], out / "demo", include_limited=True).files
    return files


if __name__ == "__main__":
    for path in regenerate(ROOT):
        print(f"wrote {path.relative_to(ROOT.parent)}")
