"""From run records to a folder of leaderboard pages."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from swiftvlm_eval.leaderboard.board import Board
from swiftvlm_eval.leaderboard.compute.assemble import assemble
from swiftvlm_eval.leaderboard.compute.entries import admit, group_entries
from swiftvlm_eval.leaderboard.compute.paper_table import load_published
from swiftvlm_eval.leaderboard.compute.published import Paper, published_boards
from swiftvlm_eval.leaderboard.compute.versus import PAGE, TITLE, compare, versus_csv, versus_page
from swiftvlm_eval.leaderboard.folder import replace_pages
from swiftvlm_eval.leaderboard.render import latency as latency_page
from swiftvlm_eval.leaderboard.render.export import board_csv, board_json, problem_lines, problem_lists
from swiftvlm_eval.leaderboard.render.html import Neighbours, html_page
from swiftvlm_eval.leaderboard.render.markdown import board_page, index_page
from swiftvlm_eval.leaderboard.render.names import tidy_problems
from swiftvlm_eval.leaderboard.render.pairs import ENDING, has_pairs, pairs_csv
from swiftvlm_eval.leaderboard.render.plots import board_pictures, render
from swiftvlm_eval.results.benchmarks import BenchmarkTable, shipped_benchmarks
from swiftvlm_eval.results.latency_store import ENDING as LATENCY
from swiftvlm_eval.results.latency_store import StoredLatency, load_latency
from swiftvlm_eval.results.store import Problem, StoredRun, load_records

_KINDS = {"Markdown": "md", "CSV": "csv", "JSON": "json"}


@dataclass(frozen=True)
class BuildReport:
    """What `build` made.

    Attributes:
        boards: Measured boards.
        files: Files written, sorted.
        problems: What was left out or must be kept in mind, with the file's name.
    """

    boards: tuple[Board, ...]
    files: tuple[Path, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Gathered:
    """What the inputs of a leaderboard hold.

    Attributes:
        runs: Everything that could be read, as it was found.
        boards: Measured boards.
        papers: Published tables with their boards.
        problems: What was left out or must be kept in mind.
        latency: Latency runs.
    """

    runs: Sequence[StoredRun]
    boards: Sequence[Board]
    papers: Sequence[Paper]
    problems: Sequence[Problem]
    latency: Sequence[StoredLatency] = ()


def build(
    inputs: Iterable[Path],
    out: Path,
    *,
    published: Iterable[Path] = (),
    include_limited: bool = False,
    benchmarks: BenchmarkTable | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> BuildReport:
    """Builds the leaderboard pages of everything found under `inputs`.

    The same records give the same bytes, in whatever order they are found.

    Args:
        inputs: Folders and files with run records or plain lmms-eval output; none, to show published numbers alone.
        out: Folder for the pages; created if needed.
        published: YAML files with numbers from papers.
        include_limited: Also show limited and partial runs, labelled as such.
        benchmarks: The benchmark columns, the shipped ones by default.
        elsewhere: Pages in other folders to link to: title by address, relative to `out`.

    Raises:
        ValueError: An input does not exist, nothing may enter a leaderboard, or the folder cannot be made; the message
            says why.
    """
    given = list(inputs)
    found = gather(given, published, include_limited=include_limited, benchmarks=benchmarks)
    files = pages(found.boards, found.papers, found.problems, files_beside(given, out), elsewhere, found.latency)
    return BuildReport(tuple(found.boards), replace_pages(out, files), tuple(found.problems))


def gather(
    inputs: Sequence[Path],
    published: Iterable[Path] = (),
    *,
    include_limited: bool = False,
    benchmarks: BenchmarkTable | None = None,
) -> Gathered:
    """Reads runs and published tables, without writing anything. Arguments as of `build`.

    Raises:
        ValueError: An input does not exist, or nothing may enter a leaderboard; the message says why.
    """
    table = benchmarks or shipped_benchmarks()
    papers = published_boards([load_published(path, table) for path in sorted(published)], table)
    runs, unreadable = load_records([path for path in inputs if path.is_dir() or not path.name.endswith(LATENCY)])
    latency, broken = load_latency(inputs)
    boards, problems = _assembled(runs, [*unreadable, *broken], table, include_limited)
    if not boards and not latency and (inputs or not papers):
        reasons = "; ".join(problem_lines(problems)) or "no run records or lmms-eval results files found"
        raise ValueError(f"nothing to show: {reasons}")
    return Gathered(runs, boards, papers, problems, latency)


def collect(
    inputs: Iterable[Path], table: BenchmarkTable, *, include_limited: bool = False
) -> tuple[list[Board], list[Problem]]:
    """Reads runs and assembles their boards, without writing anything.

    Args:
        inputs: Folders and files with run records or plain lmms-eval output.
        table: The benchmark columns.
        include_limited: Also admit limited and partial runs.
    """
    return _assembled(*load_records(inputs), table, include_limited)


def _assembled(
    runs: Sequence[StoredRun], unreadable: Sequence[Problem], table: BenchmarkTable, include_limited: bool
) -> tuple[list[Board], list[Problem]]:
    admitted, refused = admit(runs, include_limited)
    entries, repeated = group_entries(admitted)
    boards, found = assemble(entries, table)
    return boards, tidy_problems([*unreadable, *refused, *repeated, *found])


def files_beside(inputs: Iterable[Path], out: Path) -> dict[str, str]:
    """Returns the addresses of input files that lie in the folder of the pages, by name; names found twice have none.

    Args:
        inputs: Folders and files with runs.
        out: Folder of the pages.
    """
    inside = [path.resolve() for path in inputs if path.resolve().is_relative_to(out.resolve())]
    files = {each for path in inside for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file()}
    names = Counter(path.name for path in files)
    return {path.name: quote(path.relative_to(out.resolve()).as_posix()) for path in files if names[path.name] == 1}


def pages(
    boards: Sequence[Board],
    papers: Sequence[Paper],
    problems: Sequence[Problem],
    records: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, str] | None = None,
    latency: Sequence[StoredLatency] = (),
) -> dict[str, bytes]:
    """Returns every file of a leaderboard folder by name.

    Args:
        boards: Measured boards.
        papers: Published tables with their boards.
        problems: What was refused or left out.
        records: Address, relative to the folder, of each record and per-sample file in it, by file name.
        elsewhere: Pages in other folders to link to: title by address, relative to the folder.
        latency: Latency runs; they get a page of their own.
    """
    files: dict[str, bytes] = {}
    printed = [paper.board for paper in papers]
    own: dict[str, dict[str, str]] = {}
    for board in [*boards, *printed]:
        files |= board_files(board, board_pictures(board))
        own[board.slug] = {title: f"{board.slug}.{kind}" for title, kind in _KINDS.items()}
        if has_pairs(board):
            own[board.slug]["pairs as CSV"] = f"{board.slug}{ENDING}.csv"
    others = dict(elsewhere or {})
    if papers:
        versus = versus_files(papers, [board for board in boards if not board.limited])
        files |= versus
        others |= {PAGE: TITLE} if versus else {}
    if latency:
        files |= latency_page.latency_files(latency)
        others |= {latency_page.PAGE: latency_page.TITLE}
    near = Neighbours(own, records or {}, {title: name for name, title in others.items()})
    files["index.md"] = index_page(boards, printed, others, problem_lists(problems)).encode()
    files["index.html"] = html_page([*boards, *printed], problem_lists(problems), near).encode()
    return files


def board_files(board: Board, drawn: Mapping[str, tuple[str, Figure]]) -> dict[str, bytes]:
    """Returns the files of one board by name.

    Args:
        board: The board.
        drawn: Its pictures, as returned by `board_pictures`.
    """
    files = {f"{stem}.{kind}": render(figure, kind) for stem, (_, figure) in drawn.items() for kind in ("svg", "png")}
    if has_pairs(board):
        files[f"{board.slug}{ENDING}.csv"] = pairs_csv(board).encode()
    return files | {
        f"{board.slug}.md": board_page(board, {text: f"{stem}.svg" for stem, (text, _) in drawn.items()}).encode(),
        f"{board.slug}.csv": board_csv(board).encode(),
        f"{board.slug}.json": board_json(board).encode(),
    }


def versus_files(papers: Sequence[Paper], boards: Sequence[Board]) -> dict[str, bytes]:
    """Returns the page and the CSV that set published numbers beside ours; nothing where no row of ours has a like."""
    comparisons = [each for paper in papers for each in compare(paper, boards)]
    if all(each.our_row is None for each in comparisons):
        return {}
    return {
        PAGE: versus_page(papers, comparisons).encode(),
        PAGE.replace(".md", ".csv"): versus_csv(comparisons).encode(),
    }
