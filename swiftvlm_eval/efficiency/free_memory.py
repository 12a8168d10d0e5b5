"""How much memory of this machine is free."""

from contextlib import suppress
from pathlib import Path


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take: what Linux calls available, within the limit of its control group.

    Args:
        root: of the file system.

    Returns:
        None where the system does not say.
    """
    known: list[int] = []
    with suppress(OSError, ValueError):
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        known += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, used in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            numbers = [(root / name).read_text(encoding="ascii").strip() for name in (limit, used)]
        except OSError:
            continue
        if all(number.isdecimal() for number in numbers):  # or `max`
            known.append(max(0, int(numbers[0]) - int(numbers[1])))
    return min(known) if known else None
