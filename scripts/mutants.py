"""How many small faults the tests notice: a random sample of mutants, each against the tests that mirror its file.

make mutants                                         # 120 mutants, two at a time; goes on after a kill
python scripts/mutants.py --out runs/mutants --count 6 --only swiftvlm_eval/grounding
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy and torch are imported: a fork must find no threads
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "MPLBACKEND": "Agg"}

import typer  # noqa: E402
import yaml  # noqa: E402
from mutation.mirrors import Mirrors, fast_first  # noqa: E402
from mutation.population import Mutant, draw  # noqa: E402
from mutation.report import NOTICED, Report  # noqa: E402
from mutation.running import Job, Verdict, copy_tree, fingerprint, preload, run_all, tracked  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).resolve().parent / "mutation" / "mirrors.yaml"
TESTS_LIMIT = 1800.0
SHORTEST_LIMIT = 120.0
_WHOLE = ("passed", "error")


def main(
    out: Annotated[Path, typer.Option(help="Folder of copies, logs and report; the same one goes on.")] = Path(
        "runs/mutants"
    ),
    count: Annotated[int, typer.Option(min=1, help="Mutants in the sample.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, max=2, help="Runs at a time.")] = 2,
    only: Annotated[str, typer.Option(help="Only sources whose path begins so.")] = "",
    factor: Annotated[float, typer.Option(min=1, help="Limit of a run, in times of its tests' own seconds.")] = 4.0,
    floor: Annotated[float, typer.Option(min=0, max=100, help="Percent noticed below which the status is 1.")] = 85.0,
    equivalent: Annotated[
        Path | None, typer.Option(help="YAML: a word on each survivor that changes nothing, by its name.")
    ] = None,
    root: Annotated[Path, typer.Option(help="The tree; it is copied, never changed.")] = ROOT,
    table: Annotated[Path, typer.Option(help="Which tests mirror which sources.")] = TABLE,
) -> None:
    """Draws the sample, runs what has no verdict yet, and writes report.json and report.md."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    words: dict[str, str] = yaml.safe_load(equivalent.read_text(encoding="utf-8")) or {} if equivalent else {}
    try:
        report = measure(out.resolve(), root.resolve(), Mirrors.read(table), count, seed, jobs, only, factor)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    (out / "report.md").write_text(report.markdown(words), encoding="utf-8")
    untested = sum(verdict.status == "error" for verdict in report.verdicts.values())
    print(f"noticed {100 * report.share:.1f} % of {len(report.verdicts)}; {untested} not tested; {out / 'report.md'}")
    raise typer.Exit(1 if untested or 100 * report.share < floor else 0)


def measure(
    out: Path, root: Path, mirrors: Mirrors, count: int, seed: int, jobs: int, only: str, factor: float
) -> Report:
    """Runs the sample's mutants that have no verdict yet.

    Raises:
        ValueError: the tests fail without a mutant, the table does not fit the tree, or `out` has another run.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in tracked(root) if not (root / name).is_relative_to(out)]
    tests = {source: files for source, files in mirrors.tests(names).items() if source.startswith(only)}
    if not tests:
        raise ValueError(f"only={only}: no source of the table begins so")
    mutants = draw(root, sorted(tests), count, seed)
    facts = {"tree": fingerprint(root, names), "commit": commit(root), "seed": seed, "count": count, "only": only}
    report = Report.resume(out / "report.json", facts, mutants)
    preload(mirrors.preload)
    copies = [out / f"copy-{number}" for number in range(jobs)]
    for copy in copies:
        copy_tree(root, names, copy)
    run_tests(report, sorted({test for mutant in mutants for test in tests[mutant.file]}), root, copies, out)
    run_mutants(report, tests, factor, root, copies, out)
    return report


def commit(root: Path) -> str:
    """The commit that is checked out; edits beyond it show in the fingerprint."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip() or "none"


def run_tests(report: Report, tests: list[str], root: Path, copies: list[Path], out: Path) -> None:
    """Every test file by itself on the tree as it is: its seconds, and that it passes.

    Raises:
        ValueError: some do not pass.
    """
    waiting = [test for test in tests if test not in report.tests or report.tests[test].status != "passed"]

    def done(job: Job, verdict: Verdict) -> None:
        report.tests[job.tests[0]] = verdict
        report.write(out / "report.json")
        print(f"{verdict.seconds:6.0f} s  {verdict.status:8} {job.tests[0]}", flush=True)

    run_all([Job(test.replace("/", "-"), (test,), TESTS_LIMIT) for test in waiting], root, copies, out / "logs", done)
    verdicts = {test: report.tests[test] for test in tests}
    # a file whose tests need a GPU collects none elsewhere
    broken = [f"{test} ({each.by or each.status})" for test, each in verdicts.items() if each.status not in _WHOLE]
    if broken:
        raise ValueError(f"tests that do not pass without a mutant: {', '.join(broken)}; see {out / 'logs'}")


def run_mutants(
    report: Report, tests: dict[str, tuple[str, ...]], factor: float, root: Path, copies: list[Path], out: Path
) -> None:
    """Every mutant without a verdict against its tests, fastest first, until one fails."""
    seconds = {test: verdict.seconds for test, verdict in report.tests.items()}
    by_name: dict[str, Mutant] = {mutant.name: mutant for mutant in report.mutants}

    def job(mutant: Mutant) -> Job:
        files = fast_first(tests[mutant.file], mutant.file, seconds)
        limit = max(SHORTEST_LIMIT, factor * sum(seconds[file] for file in files))
        source = (root / mutant.file).read_text(encoding="utf-8")
        return Job(mutant.name, files, limit, mutant.file, mutant.code(source))

    def done(job: Job, verdict: Verdict) -> None:
        report.verdicts[job.name] = verdict
        report.write(out / "report.json")
        mutant = by_name[job.name]
        where = f"{mutant.file}:{mutant.line} {mutant.operator.split('/')[-1]}"
        count = f"{len(report.verdicts)}/{len(report.mutants)}"
        print(f"{count} {verdict.seconds:5.0f} s  {NOTICED[verdict.status]:8} {where} {verdict.by}", flush=True)

    waiting = [mutant for mutant in report.mutants if mutant.name not in report.verdicts]
    run_all([job(mutant) for mutant in waiting], root, copies, out / "logs", done)


if __name__ == "__main__":
    typer.run(main)
