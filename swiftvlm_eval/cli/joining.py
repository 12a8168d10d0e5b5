"""Commands on the way in: `submit-check`, `wanted`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from swiftvlm_eval.cli.terminal import errors, fail

BASELINES = ("random",)
"""Methods shown beside every submitted row."""


def submit_check_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Records (*.record.json) with their samples (*.samples.jsonl.gz) and, for a method of your own, its "
            "source (*.py); or folders of such.",
        ),
    ],
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference",
            help="Folder with the records that are there; repeatable. Default: leaderboards, if it is there.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Check records as a stranger's submission: is everything there, and may it stand beside the other rows?

    Schema, hashes and number of the samples, all documents of known benchmarks, scores and token counts that the
    samples bear out, a registered method or its source (hashed, never run), a vanilla run of the same model and
    setting, no test missing that the rows beside it have, no secrets or folders of a machine, no copy of a record.
    Prints the new rows beside vanilla, the first and random of their budget as Markdown, and on standard error one
    line for each reason to refuse. Exit status 1 if anything is refused.

    Example: swiftvlm-eval submit-check leaderboards/submissions/my-runs

    Example: swiftvlm-eval submit-check results/records/*/* --reference leaderboards > comment.md
    """
    from swiftvlm_eval.joining.comment import comment
    from swiftvlm_eval.joining.submission import check_submission
    from swiftvlm_eval.pruning.registry import method_names

    default = Path("leaderboards")
    folders = reference if reference else [default] if default.is_dir() else []
    try:
        found = check_submission(files, folders, registered=method_names(), now=datetime.now(UTC))
        text = comment(found, baselines=BASELINES)
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(text)
    for refusal in found.findings.refusals:
        errors.print(f"[red]refused[/] {escape(refusal.line)}", soft_wrap=True, highlight=False)
    raise typer.Exit(0 if found.ok else 1)
