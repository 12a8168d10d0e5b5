"""Reads the per-sample file of a submitted record: of bounded size, unpacked and packed."""

import hashlib
import zlib
from pathlib import Path

from pydantic import ValidationError

from swiftvlm_eval.joining.findings import Findings
from swiftvlm_eval.joining.received import LARGEST, is_plain_file
from swiftvlm_eval.results.bounds import one_line
from swiftvlm_eval.results.record import RunRecord
from swiftvlm_eval.results.samples import SampleLine
from swiftvlm_eval.results.store import SAMPLES_ENDING

LARGEST_UNPACKED = 256 << 20
LONGEST_LINE = 1 << 16
MOST_LINES = 1_000_000


def samples_of(path: Path, record: RunRecord, findings: Findings) -> list[SampleLine] | None:
    """Returns the per-sample lines of a record; None if something speaks against them.

    Args:
        path: The record file.
        record: What it holds.
        findings: Gets the refusals, under the record's name.
    """
    file, name = record.samples_file, path.name
    wanted = f"{record.stem}{SAMPLES_ENDING}"
    if file is None:
        findings.refuse(name, "samples_file", "none", f"the per-sample file {wanted}: run with --log_samples")
        return None
    if file.name != wanted:
        findings.refuse(name, "samples_file.name", file.name, wanted)
        return None
    beside = path.with_name(wanted)
    if not is_plain_file(beside, LARGEST[SAMPLES_ENDING], findings):
        findings.refuse(name, "samples_file.name", file.name, "the name of a plain file beside the record")
        return None
    packed = beside.read_bytes()
    digest = hashlib.sha256(packed).hexdigest()
    if digest != file.sha256:
        findings.refuse(name, "samples_file.sha256", file.sha256, f"the hash of {wanted}, which is {digest}")
        return None
    lines = _unpacked(packed, name, findings)
    if lines is None:
        return None
    if len(lines) != file.lines:
        findings.refuse(name, "samples_file.lines", file.lines, f"the number of its lines, {len(lines)}")
        return None
    return _parsed(lines, name, findings)


def _unpacked(packed: bytes, name: str, findings: Findings) -> list[bytes] | None:
    """The lines, unless they would fill the memory."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = unpacking.decompress(packed, LARGEST_UNPACKED + 1)
        whole = unpacking.eof and not unpacking.unused_data
    except zlib.error as error:
        findings.refuse(name, "samples_file", str(error), "a gzip file")
        return None
    if len(text) > LARGEST_UNPACKED:
        findings.refuse(name, "samples_file", "larger when unpacked", f"at most {LARGEST_UNPACKED} bytes unpacked")
        return None
    if not whole:
        findings.refuse(name, "samples_file", "cut off, or with something after its end", "one whole gzip file")
        return None
    lines = text.splitlines()
    if len(lines) > MOST_LINES or max(map(len, lines), default=0) > LONGEST_LINE:
        findings.refuse(
            name,
            "samples_file",
            f"{len(lines)} lines, the longest of {max(map(len, lines))} bytes",
            f"at most {MOST_LINES} lines of at most {LONGEST_LINE} bytes",
        )
        return None
    return lines


def _parsed(lines: list[bytes], name: str, findings: Findings) -> list[SampleLine] | None:
    found: list[SampleLine] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(SampleLine.model_validate_json(line))
        except (ValidationError, RecursionError) as error:
            findings.refuse(name, f"samples_file, line {number}", one_line(error), "a per-sample line of this package")
            return None
    return found


def answers_of(lines: list[SampleLine]) -> str:
    """Returns a hash over what was answered and how it was scored, without times and token counts.

    Args:
        lines: Per-sample lines in any order.
    """
    ordered = sorted((line.task, line.doc_id, line.prediction, tuple(sorted(line.scores.items()))) for line in lines)
    return hashlib.sha256(repr(ordered).encode(errors="surrogatepass")).hexdigest()
