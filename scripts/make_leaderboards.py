"""Regenerates the committed leaderboards, the papers' and the demo model's, and the card of the demo model."""

from pathlib import Path

from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.demo.training.card import read_facts, render_card
from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.leaderboard.build import collect
from swiftvlm_eval.leaderboard.markdown import accuracy_table
from swiftvlm_eval.leaderboard.text import markdown
from swiftvlm_eval.results import shipped_benchmarks

ROOT = Path(__file__).resolve().parents[1] / "leaderboards"
RECORDS = ROOT / "demo" / "records"
CARD = checkpoint_path().parent / "README.md"


def regenerate(out: Path) -> list[Path]:
    """Writes both leaderboards below `out`; returns the files."""
    published = sorted((ROOT / "published").glob("*.yaml"))
    files = list(build([], out / "papers", published=published).files)
    return [*files, *build([RECORDS], out / "demo", include_limited=True).files]


def demo_card() -> str:
    """The demo model's card: the facts of its training, and what the methods cost it."""
    boards, _ = collect([RECORDS], shipped_benchmarks())
    tables = {
        markdown(section.title): accuracy_table(board, section) for board in boards for section in board.sections
    }
    return render_card(read_facts(CARD.parent), tables)


if __name__ == "__main__":
    written = regenerate(ROOT)
    CARD.write_text(demo_card())
    for path in [*written, CARD]:
        print(f"wrote {path.relative_to(ROOT.parent)}")
