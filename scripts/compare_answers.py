"""Compares the answers of two sets of records document by document: did a change of code change an answer?

python scripts/compare_answers.py OLD NEW     # folders with records; exit status 1 if anything differs
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from swiftvlm_eval.results import load_records

console = Console(soft_wrap=True)
Key = tuple[str, str, int]
Answer = tuple[str, float | None, bool]


def read_answers(folder: Path) -> dict[Key, Answer]:
    """(run, task, document) -> (answer, mean visual rows per layer, failed), of every record below a folder.

    A run is known by its method, the options that are set, its budget and its seed.

    Raises:
        ValueError: a record that cannot be read, one run twice, or no answers at all.
    """
    runs, problems = load_records([folder])
    if problems:
        raise ValueError("; ".join(f"{problem.file}: {problem.reason}" for problem in problems))
    found: dict[Key, Answer] = {}
    for run in runs:
        method, seed = run.record.method, run.record.settings.seed
        options = {name: value for name, value in method.options.items() if value is not None}
        name = json.dumps([method.name, round(method.budget or 0, 6), seed, options], sort_keys=True)
        for line in run.samples():
            key = (name, line.task, line.doc_id)
            if key in found:
                raise ValueError(f"{run.path.name}: {key} occurs twice below {folder}")
            found[key] = (line.prediction, line.kept_visual_tokens, line.failed)
    if not found:
        raise ValueError(f"{folder}: no answers below it")
    return found


def main(
    old: Annotated[Path, typer.Argument(help="Folder with the records of the first run.")],
    new: Annotated[Path, typer.Argument(help="Folder with those of the second run.")],
) -> None:
    """Says how many answers of the two folders are equal, and which are not."""
    try:
        first, second = read_answers(old), read_answers(new)
    except ValueError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(2) from error
    shared = sorted(first.keys() & second.keys())
    different = [key for key in shared if first[key] != second[key]]
    for key in different[:20]:
        console.print(f"{key}: {first[key]!r} became {second[key]!r}", markup=False)
    only = len(first) - len(shared), len(second) - len(shared)
    console.print(
        f"{len(shared)} answers on both sides, {len(different)} different; "
        f"{only[0]} only in OLD, {only[1]} only in NEW"
    )
    raise typer.Exit(1 if different or any(only) else 0)


if __name__ == "__main__":
    typer.run(main)
