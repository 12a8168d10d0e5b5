"""The command `demo`: a small comparison on the embedded model, with a table, pages and a picture."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from swiftvlm_eval.cli.board_table import print_board
from swiftvlm_eval.cli.options import BudgetsOption, MethodsOption
from swiftvlm_eval.cli.progress import log_file, logged
from swiftvlm_eval.cli.sweeping import exit_status, run_sweep
from swiftvlm_eval.cli.terminal import console, fail

if TYPE_CHECKING:
    from swiftvlm_eval.sweep import Configuration

DEMO_METHODS = "vanilla,random,fastv,swiftvlm"
DEMO_BUDGETS = "1/3,2/9"
DEMO_QUESTIONS = 100
PICTURED_TASK = "demo_refcoco"
"""Grounding: its first document is drawn."""
PICTURES = "kept"
README = """\
# What `swiftvlm-eval demo` left here

The numbers are those of a tiny model on scenes drawn by a program; they say nothing about LLaVA.

| path | what it is |
|---|---|
| `leaderboard/index.html` | the comparison: open it in a browser; the same as Markdown, CSV and JSON beside it |
| `{pictures}/side_by_side.png` | what each method kept of the image of {task}, document 0; `index.html` beside it |
| `records/` | a record for each method and budget: scores, settings, versions, and every answer |
| `lmms_eval/` | lmms-eval's own results and samples files |
| `logs/` | what lmms-eval and libraries said |

A second call keeps the records that are here and runs what is missing; `--fresh` forgets them.
"""


def demo_command(
    out: Annotated[
        Path, typer.Option("--out", "--output_path", help="Folder for records, leaderboard and pictures.")
    ] = Path("demo_run"),
    methods: MethodsOption = DEMO_METHODS,
    budgets: BudgetsOption = DEMO_BUDGETS,
    questions: Annotated[
        int,
        typer.Option(
            "--questions", "--limit", min=2, help="Questions per task; the embedded benchmark has 500 or more of each."
        ),
    ] = DEMO_QUESTIONS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier results in the folder.")] = False,
) -> None:
    """Compare methods on the embedded demo model and print the leaderboard; a few minutes on a laptop, no download.

    The model is tiny and its scenes are drawn by a program: the numbers are the demo model's, never LLaVA's. What the
    methods kept of one image is drawn, too.
    """
    from swiftvlm_eval.efficiency.table import decoder_of
    from swiftvlm_eval.sweep import make_grid, parse_methods

    try:
        typed = budgets.split(",")
        tokens = decoder_of("demo", "").visual_tokens
        grid = make_grid(parse_methods(methods), typed, visual_tokens=tokens)
        pictures_in(out / PICTURES)
        if fresh:  # not before: nothing is deleted for a mistyped request
            forget(out)
        outcomes = run_sweep("demo", out, grid, ["demo"], budgets=typed, limit=questions, device="cpu")
        if not console.quiet:  # of several processes one goes on
            report(out, grid, questions)
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        fail(error)
    raise typer.Exit(exit_status(outcomes))


def report(out: Path, grid: Sequence["Configuration"], questions: int) -> None:
    """Builds the leaderboard, draws the picture, and prints the table and what to open.

    Raises:
        ValueError, RuntimeError, OSError: as raised by what is wrong.
    """
    from swiftvlm_eval.leaderboard import build

    boards = build([out / "records"], out / "leaderboard", include_limited=True).boards
    pictures = draw(out, grid)
    write_readme(out)
    for board in boards:
        print_board(board)
    console.print(f"The first {questions} questions of each task; the demo model's numbers, not LLaVA's.")
    console.print(f"What was kept of one image: {escape(str(pictures / 'side_by_side.png'))}", soft_wrap=True)
    console.print(f"Open {escape(str(out / 'leaderboard' / 'index.html'))} in a browser.", soft_wrap=True)


def draw(out: Path, grid: Sequence["Configuration"]) -> Path:
    """Draws what every method keeps of the first grounding document at the first budget, in place of earlier pictures.

    Args:
        out: the demo's folder.
        grid: what was run.

    Returns:
        The folder of the pictures.

    Raises:
        ValueError, RuntimeError, OSError: a run failed, or files cannot be written.
    """
    from swiftvlm_eval.analysis.asking import ask_of_task
    from swiftvlm_eval.analysis.show_files import write_pictures
    from swiftvlm_eval.analysis.showing import show
    from swiftvlm_eval.models.checkpoint import load_checkpoint
    from swiftvlm_eval.results.store import make_folder

    first = next((cell.budget for cell in grid if cell.budget < 1), 1.0)
    with logged(log_file(out)), console.status("drawing what was kept"):
        asked, checkpoint = ask_of_task(PICTURED_TASK, 0), load_checkpoint("demo", device="cpu")
        shown = show(checkpoint, asked, [cell for cell in grid if cell.budget in (first, 1.0)])
        folder = out / PICTURES
        for path in pictures_in(folder):
            path.unlink(missing_ok=True)
        make_folder(folder)
        write_pictures(folder, checkpoint, asked, shown, "rows")
    return folder


def pictures_in(folder: Path) -> list[Path]:
    """The files that an earlier call drew; other files in the folder are somebody else's.

    Raises:
        ValueError: the folder holds files, but not what such a call leaves.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    try:
        methods = json.loads((folder / "show.json").read_text(encoding="utf-8"))["methods"]
        names = [str(stage["picture"]) for method in methods for stage in method["stages"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"out={folder}: holds something else than the demo's pictures; move it away") from error
    return [folder / Path(name).name for name in ("index.html", "side_by_side.png", *names, "show.json")]


def write_readme(out: Path) -> None:
    """Says in the folder what is in it; a README of somebody else stays."""
    path = out / "README.md"
    text = README.format(pictures=PICTURES, task=PICTURED_TASK)
    first = text.partition("\n")[0]
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace").startswith(first):
        path.write_text(text, encoding="utf-8")


def forget(out: Path) -> None:
    """Deletes earlier results of the demo model.

    Raises:
        ValueError: the folder holds records of another model, or of none that can be read.
    """
    from swiftvlm_eval.results import load_records

    if (out / "records").is_dir():
        runs, problems = load_records([out / "records"])
        others = [run.path.name for run in runs if run.record.model.pretrained != "demo"]
        others += [problem.file for problem in problems]
        if others:
            raise ValueError(
                f"fresh, out={out}: holds what is not a record of the demo model ({others[0]}); delete it"
            )
    for part in ("records", "lmms_eval", "partial", "claims", "leaderboard", "logs"):
        shutil.rmtree(out / part, ignore_errors=True)
