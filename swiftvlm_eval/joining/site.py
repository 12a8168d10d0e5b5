"""Writes a folder fit for any static host: pages, records, `leaderboard.json` with its schema, and a feed."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from swiftvlm_eval.joining.feed import FEED_FILE, feed, moment
from swiftvlm_eval.joining.schema import (
    DATA_FILE,
    SCHEMA_FILE,
    SCHEMA_VERSION,
    PublishedLeaderboard,
    PublishedRecord,
    json_schema,
    published_board,
)
from swiftvlm_eval.leaderboard.board import Board, Row
from swiftvlm_eval.leaderboard.build import BuildReport, gather, pages
from swiftvlm_eval.leaderboard.folder import foreign_files, replace_pages
from swiftvlm_eval.results.benchmarks import BenchmarkTable
from swiftvlm_eval.results.files import require_regular
from swiftvlm_eval.results.record import RunRecord
from swiftvlm_eval.results.store import RECORD_ENDING, SAMPLES_ENDING, Problem, StoredRun

RECORDS = "records"
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d{1,5})?(?:/[A-Za-z0-9._~/-]*)?")


def build_site(
    inputs: Iterable[Path],
    out: Path,
    *,
    published: Iterable[Path] = (),
    include_limited: bool = False,
    benchmarks: BenchmarkTable | None = None,
    address: str = "",
) -> BuildReport:
    """Builds the site of everything found under `inputs`. The same records give the same bytes.

    Args:
        inputs: Folders and files with run records or plain lmms-eval output; of the latter no record is published.
        out: A new or empty folder, or a site made here; anything else in it is refused, since it would be published.
        published: YAML files with numbers from papers.
        include_limited: Also show limited and partial runs, labelled as such.
        benchmarks: The benchmark columns, the shipped ones by default.
        address: Where the site will stand (https://host/path/), for the feed's links; relative ones without it.

    Raises:
        ValueError: An input does not exist, nothing may be shown, the address is none, or the folder holds something
            else or cannot be written.
    """
    if address and not _ADDRESS.fullmatch(address):
        raise ValueError(f"address={address!r}: allowed is https://host/path/")
    for folder, besides in ((out, (RECORDS,)), (out / RECORDS, ())):
        if foreign := foreign_files(folder, besides):
            raise ValueError(
                f"folder {folder} holds {', '.join(foreign[:5])}, which is not of a site made here; "
                "allowed is a new or empty folder, or such a site"
            )
    gathered = gather(list(inputs), published, include_limited=include_limited, benchmarks=benchmarks)
    shelf = _Shelf(gathered.runs)
    content = _content([*gathered.boards, *(paper.board for paper in gathered.papers)], shelf)
    found = [*gathered.problems, *shelf.problems]
    own = {
        DATA_FILE: (content.model_dump_json(indent=2) + "\n").encode(),
        SCHEMA_FILE: json_schema().encode(),
        FEED_FILE: feed(content.boards, address and f"{address.rstrip('/')}/"),
    }
    drawn = pages(gathered.boards, gathered.papers, found, latency=gathered.latency)
    found += [
        Problem(name, "a board's page, not published: the site has a file of that name")
        for name in own
        if name in drawn
    ]
    files = drawn | own
    # records first: no page ever links to what is not there yet
    written = [*replace_pages(out / RECORDS, shelf.files), *replace_pages(out, files)]
    return BuildReport(tuple(gathered.boards), tuple(sorted(written)), tuple(found))


def _content(boards: Sequence[Board], shelf: "_Shelf") -> PublishedLeaderboard:
    made = [published_board(board, {row.key: shelf.of_row(row) for row in board.rows}) for board in boards]
    times = [
        when
        for board in made
        for section in board.sections
        for row in section.rows
        for record in row.records
        if (when := moment(record.created))
    ]
    return PublishedLeaderboard(
        format="swiftvlm-eval/leaderboard",
        schema_version=SCHEMA_VERSION,
        updated=max(times, default=None),
        boards=tuple(made),
    )


class _Shelf:
    """The records that rows stand on, to be published with their samples under the names their content asks for."""

    def __init__(self, runs: Sequence[StoredRun]) -> None:
        self.files: dict[str, bytes] = {}
        self.problems: list[Problem] = []
        self._runs: dict[str, list[StoredRun]] = {}
        self._made: dict[Path, PublishedRecord] = {}
        for run in runs:
            self._runs.setdefault(run.record.record_id, []).append(run)

    def of_row(self, row: Row) -> tuple[PublishedRecord, ...]:
        """Returns the records of a row, and takes their files."""
        return tuple(self._of_record(record) for record in row.records)

    def _of_record(self, record: RunRecord) -> PublishedRecord:
        run = next((each for each in self._runs.get(record.record_id, []) if each.record == record), None)
        bare = PublishedRecord(
            id=record.record_id, file=None, sha256=None, samples=None, created=record.origin.created
        )
        if run is None or not run.path.name.endswith(RECORD_ENDING):
            return bare
        if run.path not in self._made:
            self._made[run.path] = self._taken(run, bare)
        return self._made[run.path]

    def _taken(self, run: StoredRun, bare: PublishedRecord) -> PublishedRecord:
        name, content = f"{run.record.stem}{RECORD_ENDING}", run.path.read_bytes()
        if self.files.get(name, content) != content:
            self.problems.append(Problem(run.path.name, f"not published: another run has its name, {name}"))
            return bare
        self.files[name] = content
        return bare.model_copy(
            update={
                "file": f"{RECORDS}/{name}",
                "sha256": hashlib.sha256(content).hexdigest(),
                "samples": self._samples(run),
            }
        )

    def _samples(self, run: StoredRun) -> str | None:
        file, name = run.record.samples_file, f"{run.record.stem}{SAMPLES_ENDING}"
        if file is None:
            return None
        try:
            if file.name != name:
                raise ValueError(f"the samples file is called {file.name}; allowed is {name}")
            content = require_regular(run.path.with_name(name)).read_bytes()
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise ValueError(f"{name} differs from the one its record was written with")
        except (OSError, ValueError) as error:
            self.problems.append(Problem(run.path.name, f"samples not published: {error}"))
            return None
        self.files[name] = content
        return f"{RECORDS}/{name}"
