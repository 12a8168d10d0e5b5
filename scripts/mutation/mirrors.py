"""Which test files mirror which source file; the table is mirrors.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import yaml
from pydantic import BaseModel, ConfigDict, Field


class Group(BaseModel):
    """Source files and their tests.

    Attributes:
        sources: patterns of paths below the root; `**` crosses folders.
        tests: test files, or folders of them.
        without: names of sources, without suffix, that are left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = Field(default=(), alias="not")

    def has(self, name: str) -> bool:
        """Whether a file of the tree is one of the sources."""
        path = PurePosixPath(name)
        matching = any(fnmatch(name, pattern.replace("**/", "*")) for pattern in self.sources)
        return matching and path.name != "__init__.py" and path.stem not in self.without


class Mirrors(BaseModel):
    """The table.

    Attributes:
        preload: modules that every test run needs.
        groups: a file belongs to the first group that has it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preload: tuple[str, ...] = ()
    groups: tuple[Group, ...]

    @classmethod
    def read(cls, path: Path) -> Mirrors:
        """Reads the table."""
        return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))

    def tests(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Test files by source file.

        Args:
            names: all files of the tree.

        Raises:
            ValueError: a group has no source file or no test file in the tree.
        """
        found: dict[str, tuple[str, ...]] = {}
        for group in self.groups:
            sources = [name for name in names if group.has(name)]
            tests = sorted({name for name in names for test in group.tests if _is_test(name, test)})
            if not sources or not tests:
                missing = "source" if not sources else "test"
                raise ValueError(f"groups: {', '.join(group.sources)}: no {missing} file is there")
            for source in sources:
                found.setdefault(source, tuple(tests))
        return found


def fast_first(tests: Sequence[str], source: str, seconds: Mapping[str, float]) -> tuple[str, ...]:
    """The test file named like the source, then the others by the seconds that they take."""
    mirrored = f"test_{PurePosixPath(source).stem}"
    return tuple(sorted(tests, key=lambda test: (PurePosixPath(test).stem != mirrored, seconds[test], test)))


def _is_test(name: str, wanted: str) -> bool:
    path = PurePosixPath(name)
    inside = name == wanted or name.startswith(f"{wanted.rstrip('/')}/")
    return inside and fnmatch(path.name, "test_*.py")
