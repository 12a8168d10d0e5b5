"""Regenerates the committed leaderboards (papers, demo model), the demo model's card and the README's tables."""

import shutil
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml
from demo_analysis import analysis_page
from demo_model.card import read_facts, render_card

from swiftvlm_eval import PruningMethod, make_method, method_names
from swiftvlm_eval.demo import checkpoint_path
from swiftvlm_eval.leaderboard import build
from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.compute.paper_table import SHIPPED, shipped_tables
from swiftvlm_eval.leaderboard.folder import replace_pages
from swiftvlm_eval.leaderboard.render.grid import figures
from swiftvlm_eval.leaderboard.render.latency import PAGE as LATENCY_PAGE
from swiftvlm_eval.leaderboard.render.latency import TITLE as LATENCY
from swiftvlm_eval.leaderboard.render.latency import latency_files
from swiftvlm_eval.leaderboard.render.markdown import accuracy_table, table
from swiftvlm_eval.leaderboard.render.text import interval, markdown, number
from swiftvlm_eval.pruning.describe import not_servable
from swiftvlm_eval.results.latency_store import load_latency

ROOT = Path(__file__).resolve().parents[1] / "leaderboards"
RECORDS = ROOT / "demo" / "records"
CARD = checkpoint_path().parent / "README.md"
README = ROOT.parent / "README.md"
GROUNDING = "demo_refcoco"
BEGIN, END = "<!-- made by make leaderboard -->", "<!-- end -->"
METHODS_PAGE = ROOT.parent / "docs" / "methods.md"
METHODS = "<!-- methods: made by make leaderboard -->"
FRONT = ROOT / "README.md"
FACTS = ROOT.parent / "swiftvlm_eval" / "leaderboard" / "methods.yaml"
SHOWN = 10
"""Rows of the README's table."""


def regenerate(out: Path) -> tuple[list[Path], Board]:
    """Writes all leaderboards below `out`; returns the files, and the board of the demo model."""
    papers = build([], out / "papers", published=shipped_tables(), elsewhere={"../demo/index.html": "demo model"})
    records = out / "demo" / "records"
    if records != RECORDS:  # the page links to them only where they stand beside it
        shutil.copytree(RECORDS, records, dirs_exist_ok=True)
    timed = latency_folders()
    others = {"../papers/index.html": "papers", "analysis.md": "methods taken apart", "../README.md": "all boards"}
    others |= {f"../{folder.name}/{LATENCY_PAGE}": f"{LATENCY}: {folder.name}" for folder in timed}
    demo = build([records], out / "demo", include_limited=True, elsewhere=others)
    written = [*papers.files, *demo.files]
    for folder in timed:
        written += replace_pages(out / folder.name, latency_pages(folder))
    return written, demo.boards[0]


def latency_folders() -> list[Path]:
    """Folders with latency runs, one a machine."""
    return sorted(folder for folder in ROOT.glob("latency-*") if folder.is_dir())


def latency_pages(folder: Path) -> dict[str, bytes]:
    """The page of one machine and its pictures.

    Raises:
        ValueError: a record cannot be read.
    """
    runs, problems = load_latency([folder / "records"])
    if problems or not runs:
        raise ValueError(f"{folder.name}: {'; '.join(problem.reason for problem in problems) or 'no records'}")
    return latency_files(runs)


def demo_card(board: Board) -> str:
    """The demo model's card: the facts of its training, and what the methods cost it."""
    tables = {markdown(section.title): accuracy_table(board, section) for section in board.sections}
    facts = read_facts(CARD.parent)
    return render_card(facts, tables, orders(board, facts["earlier"]))


def orders(board: Board, earlier: dict[str, Any]) -> str:
    """The methods in their order on an earlier checkpoint and on this one: grounding at the largest budget.

    Args:
        board: The present board.
        earlier: `rows` of label, percent of vanilla and the ends of its interval.
    """
    cells = {row.label: row.cells[GROUNDING] for row in board.sections[1].rows if GROUNDING in row.cells}
    now = [(label, cell.relative, cell.low, cell.high) for label, cell in cells.items() if cell.relative is not None]
    columns = ([_place(*row) for row in ordered(rows)] for rows in (earlier["rows"], now))
    body = [[str(place), *pair] for place, pair in enumerate(zip_longest(*columns, fillvalue=""), start=1)]
    return table(["place", "earlier checkpoint", "present checkpoint"], body, names=3)


def ordered(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Rows of label and percent, the best first, equal ones by label."""
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def _place(label: str, relative: float, low: float | None, high: float | None) -> str:
    return f"{markdown(label)} {number(relative, 1)} % {interval(low, high, 1)}".strip()


def readme(board: Board) -> str:
    """The README with its tables: the demo model (largest budget, best rows, percent of vanilla), and the methods."""
    vanilla, pruned = board.sections[:2]
    header = ["budget 1/3", *(markdown(benchmark.title) for benchmark in board.benchmarks)]
    best = pruned.rows[:SHOWN]  # in the board's order, best first
    shown = {row.label: figures(board, row, "cost")[: len(board.benchmarks)] for row in best}
    scores = figures(board, vanilla.rows[0], "cost")[: len(board.benchmarks)]
    body = [["vanilla, score", *(figure.lines[0] for figure in scores)]]
    body += [
        [markdown(label), *("<br>".join(filter(None, [each.lines[-1], each.flag])) for each in cells)]
        for label, cells in shown.items()
    ]
    scored = replaced(README.read_text(), BEGIN, [table(header, body), "", _caption(board)])
    return replaced(scored, METHODS, [methods_list()])


def replaced(page: str, begin: str, lines: Sequence[str]) -> str:
    """The page with other lines between a marker and the next end."""
    before, rest = page.split(begin)
    return "\n".join([before + begin, *lines, END + rest.split(END, 1)[1]])


def methods_list() -> str:
    """All registered methods by where they act."""
    places: dict[str, list[str]] = {
        "Baselines": [],
        "Before the decoder": [],
        "Before it and inside": [],
        "Inside": [],
    }
    for method in map(make_method, method_names()):
        layers = method.layers_for(1 / 3)
        place = "Baselines" if not _published(method) else "Inside" if layers[0] else "Before the decoder"
        place = "Before it and inside" if place == "Before the decoder" and len(layers) > 1 else place
        places[place].append(f"`{method.name}`")
    lines = [f"* {place}: {', '.join(names)}" for place, names in places.items()]
    return "\n".join(wrapped for line in lines for wrapped in wrap(line, 118, subsequent_indent="  "))


def methods_page() -> str:
    """docs/methods.md: all registered methods as their classes describe themselves, baselines first, then by name."""
    methods = sorted(map(make_method, method_names()), key=lambda method: (_published(method), method.name))
    lines = [
        "# Methods",
        "",
        "Made by `make leaderboard` from the methods' classes; `swiftvlm-eval methods NAME` adds",
    ]
    lines += ["options, presets and the plan of a budget, layer by layer. Layers are those of a decoder of 32."]
    lines += [
        "Served: a [serving engine](serving.md) can be handed the rows by `swiftvlm-eval export-embeddings`.",
        "",
    ]
    for method in methods:
        needs = ", ".join(f"`{need}`" for need in sorted(method.needs)) or "nothing but rows and attention"
        lines += [f"## {method.name}", "", f"{markdown(method.title)}, {markdown(method.source)}: {method.summary}."]
        where = [f"after layer {layer}" if layer else "before the decoder" for layer in method.layers_for(1 / 3)]
        lines += ["", f"* acts {', '.join(where) or 'nowhere'}; needs {needs}"]
        reason = not_servable(method)
        lines.append(f"* served: no, {reason}" if reason else "* served: yes")
        lines += [f"* authors' code: {markdown(method.code)}"] if _published(method) else []
        lines += [f"* to be known: {method.caveat}"] if method.caveat else []
        lines.append("")
    return "\n".join(lines)


def front_page(board: Board) -> str:
    """leaderboards/README.md: what stands in which folder."""
    counts = f"{len({row.method for row in board.rows if not row.is_vanilla})} methods"
    lines = [
        "# Leaderboards",
        "",
        f"- [Demo model](demo/demo.md), {counts}: [table](demo/demo.md), [page](demo/index.html), "
        "[CSV](demo/demo.csv), [JSON](demo/demo.json), [records](demo/records)",
        "- [Demo model, methods taken apart](demo/analysis.md): parts left out, layers, overlap, drift",
        *(
            f"- [{folder.name}]({folder.name}/{LATENCY_PAGE}): times, parts, memory, and where a method stops to pay"
            for folder in latency_folders()
        ),
        "- [Numbers as printed in papers](papers/index.md): [page](papers/index.html)",
        "",
        "![Demo model: percent of vanilla against cost](demo/demo-flops.svg)",
        "",
        "Made by `make leaderboard`. The pages work from disk: clone the repository and open one in a browser.",
    ]
    return "\n".join(lines) + "\n"


def method_facts() -> str:
    """methods.yaml: what the pages say of each registered method."""
    fields = ("name", "title", "source", "summary", "code")
    methods = [make_method(name) for name in sorted(method_names())]
    facts = [
        {field: getattr(method, field) for field in fields} | {"servable": not not_servable(method)}
        for method in methods
    ]
    head = "# Made by `make leaderboard` from the methods' classes; the fields are explained in methods.py.\n"
    return head + yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=1000)


def _published(method: PruningMethod) -> bool:
    """Whether a paper proposes it; the others are baselines."""
    return method.source not in ("baseline", "no reduction")


def _caption(board: Board) -> str:
    """What stands below the README's table."""
    earlier = read_facts(CARD.parent)["earlier"]["rows"]
    now = [(row.label, row.cells[GROUNDING].relative) for row in board.sections[1].rows if GROUNDING in row.cells]
    (first, share, *_), (leader, relative, *_) = ordered(earlier)[0], ordered(now)[0]
    count = len(board.sections[1].rows)
    text = (
        f"The best {min(SHOWN, count)} of {count} rows. This model is a test bench and no evidence about LLaVA. "
        "Intervals cover documents, not trainings, and the order depends on the training run: on an earlier "
        f"checkpoint {markdown(first)} led grounding with {share:.1f} % of vanilla, on this one {markdown(leader)} "
        f"with {relative:.1f} %; "
        "[its card](swiftvlm_eval/demo/README.md#the-order-of-the-methods-depends-on-the-training-run) has both."
    )
    return "\n".join(wrap(text, 119, break_long_words=False, break_on_hyphens=False))


def texts(board: Board) -> dict[Path, str]:
    """Every page beside the boards: path -> content.

    Args:
        board: Of the demo model.
    """
    return {
        CARD: demo_card(board),
        README: readme(board),
        METHODS_PAGE: methods_page(),
        FRONT: front_page(board),
        ROOT / "demo" / "analysis.md": analysis_page(ROOT / "demo", SHIPPED / "swiftvlm-table3.yaml"),
    }


if __name__ == "__main__":
    FACTS.write_text(method_facts(), encoding="utf-8")
    written, board = regenerate(ROOT)
    pages = texts(board)
    for path, content in pages.items():
        path.write_text(content, encoding="utf-8")
    for path in [*written, *pages, FACTS]:
        print(f"wrote {path.relative_to(ROOT.parent)}")
