"""Reads files whole, and only files: a pipe would block, a device would never end."""

import stat
from pathlib import Path

# A record has some ten kilobytes, the largest outputs of lmms-eval some hundred megabytes.
LARGEST_RECORD = 16 << 20
LARGEST_OUTPUT = 1 << 30


def require_regular(path: Path, limit: int = LARGEST_OUTPUT) -> Path:
    """Returns the path of a regular file (or of a link to one) that is small enough to be read whole.

    Raises:
        OSError: It is not there or may not be looked at.
        ValueError: It is a folder, a pipe, a device or too large; the message names it.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is not a regular file; pipes, devices and folders are not read")
    if found.st_size > limit:
        raise ValueError(f"{path.name} has {found.st_size} bytes; allowed are {limit}")
    return path
