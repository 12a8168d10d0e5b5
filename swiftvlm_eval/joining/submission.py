"""Checks a submission as a whole, as it comes from a stranger: nothing in it is run, nothing in it is believed."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from swiftvlm_eval.joining.against_reference import Placed, check_beside, placed
from swiftvlm_eval.joining.findings import Findings
from swiftvlm_eval.joining.received import LARGEST, SOURCE_ENDING, is_plain_file, receive, source_hashes
from swiftvlm_eval.joining.samples_file import answers_of, samples_of
from swiftvlm_eval.joining.single_record import OptionCheck, check_method, check_statement, check_tasks, read_submitted
from swiftvlm_eval.results.benchmarks import BenchmarkTable, shipped_benchmarks
from swiftvlm_eval.results.store import SAMPLES_ENDING, StoredRun, load_records

_MOST_SOURCES = 8


@dataclass(frozen=True)
class Submission:
    """What became of the files.

    Attributes:
        accepted: Records that nothing speaks against, sorted by name.
        reference: Records that were there.
        findings: Refusals and notes.
    """

    accepted: tuple[Placed, ...]
    reference: tuple[Placed, ...]
    findings: Findings

    @property
    def ok(self) -> bool:
        """Whether nothing at all was refused."""
        return not self.findings.refusals


def check_submission(
    given: Sequence[Path],
    reference: Sequence[Path],
    *,
    registered: Collection[str],
    now: datetime,
    table: BenchmarkTable | None = None,
    wrong_options: OptionCheck | None = None,
) -> Submission:
    """Checks the files of a submission.

    Args:
        given: Record files with what belongs to them, or folders of such.
        reference: Folders with the records that are there; those that are also given do not count.
        registered: Names of all registered methods.
        now: The present time, with a zone.
        table: The benchmark columns, the shipped ones by default.
        wrong_options: Says what is wrong with the options of a registered method; empty if nothing is.

    Raises:
        ValueError: A reference folder does not exist.
    """
    columns = table or shipped_benchmarks()
    findings = Findings()
    received = receive(given, findings)
    if not received.records:
        findings.refuse("submission", "files", "no record", "at least one *.record.json with its samples")
    runs: list[StoredRun] = []
    answers: dict[Path, str] = {}
    used: set[Path] = set()
    sources: dict[Path, dict[str, tuple[Path, ...]]] = defaultdict(dict)
    for folder in sorted({path.parent for path in received.records}):
        sources[folder] = source_hashes(_beside(folder, findings), findings)
    for path in received.records:
        record = read_submitted(path, findings)
        if record is None:
            continue
        check_statement(path.name, record, now, findings)
        used.update(check_method(path.name, record, registered, sources[path.parent], findings, wrong_options))
        used.add(path.with_name(f"{record.stem}{SAMPLES_ENDING}"))
        lines = samples_of(path, record, findings)
        if lines is not None:
            check_tasks(path.name, record, lines, columns, findings)
            answers[path] = answers_of(lines)
        if not findings.refused(path.name):
            runs.append(StoredRun(record, path))
    for path in (*received.samples, *received.sources):
        if path not in used:
            findings.refuse(path.name, "file", "belongs to no record of the submission", "files that a record names")
    there = _references(reference, [*received.records], findings)
    submitted = placed(runs)
    check_beside(submitted, there, answers, columns, findings)
    accepted = [each for each in submitted if not findings.refused(each.name)]
    return Submission(tuple(sorted(accepted, key=lambda each: each.name)), tuple(there), findings)


def _beside(folder: Path, findings: Findings) -> list[Path]:
    """Source files beside records, whether given or there already."""
    found = sorted(path for path in folder.iterdir() if path.name.endswith(SOURCE_ENDING))
    if len(found) > _MOST_SOURCES:
        findings.refuse(folder.name, "files", f"{len(found)} source files", f"at most {_MOST_SOURCES} in a folder")
    return [path for path in found[:_MOST_SOURCES] if is_plain_file(path, LARGEST[SOURCE_ENDING], findings)]


def _references(folders: Sequence[Path], given: Sequence[Path], findings: Findings) -> list[Placed]:
    own = {path.resolve() for path in given}
    runs, problems = load_records(folders)
    for problem in problems:
        if problem.file not in {path.name for path in own}:
            findings.note(problem.file, f"of the reference, not used: {problem.reason}")
    usable = [run for run in runs if run.path.resolve() not in own and run.record.status == "complete"]
    return placed(usable)
