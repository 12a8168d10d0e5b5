"""Regenerates the committed leaderboards (papers, demo model), the demo model's card and the README's table of it."""

from pathlib import Path

from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.demo.training.card import read_facts, render_card
from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.grid import figures
from swiftvlm_eval.leaderboard.markdown import accuracy_table, table
from swiftvlm_eval.leaderboard.text import markdown

ROOT = Path(__file__).resolve().parents[1] / "leaderboards"
RECORDS = ROOT / "demo" / "records"
CARD = checkpoint_path().parent / "README.md"
README = ROOT.parent / "README.md"
BEGIN, END = "<!-- made by make leaderboard -->", "<!-- end -->"


def regenerate(out: Path) -> tuple[list[Path], Board]:
    """Writes both leaderboards below `out`; returns the files, and the board of the demo model."""
    papers = build([], out / "papers", published=sorted((ROOT / "published").glob("*.yaml")))
    demo = build([RECORDS], out / "demo", include_limited=True)
    return [*papers.files, *demo.files], demo.boards[0]


def demo_card(board: Board) -> str:
    """The demo model's card: the facts of its training, and what the methods cost it."""
    tables = {markdown(section.title): accuracy_table(board, section) for section in board.sections}
    return render_card(read_facts(CARD.parent), tables)


def readme(board: Board) -> str:
    """The README with its table of the demo model: the largest budget, percent of vanilla."""
    vanilla, pruned = board.sections[:2]
    header = ["budget 1/3", *(markdown(benchmark.title) for benchmark in board.benchmarks)]
    shown = {row.label: figures(board, row, "cost")[: len(board.benchmarks)] for row in pruned.rows}
    scores = figures(board, vanilla.rows[0], "cost")[: len(board.benchmarks)]
    body = [["vanilla, score", *(figure.lines[0] for figure in scores)]]
    body += [
        [markdown(label), *("<br>".join(filter(None, [each.lines[-1], each.flag])) for each in cells)]
        for label, cells in shown.items()
    ]
    before, rest = README.read_text().split(BEGIN)
    return "\n".join([before + BEGIN, table(header, body), END + rest.split(END)[1]])


if __name__ == "__main__":
    written, board = regenerate(ROOT)
    CARD.write_text(demo_card(board))
    README.write_text(readme(board))
    for path in [*written, CARD, README]:
        print(f"wrote {path.relative_to(ROOT.parent)}")
