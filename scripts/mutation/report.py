"""What a run found: report.json, from which an interrupted run goes on, and report.md for people."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mutation.population import Mutant
from mutation.running import Verdict

NOTICED = {"failed": "noticed", "timeout": "noticed: ran past its limit", "passed": "SURVIVED", "error": "NOT TESTED"}


@dataclass
class Report:
    """The state of a run.

    Attributes:
        facts: what the sample depends on: `tree` (fingerprint), `commit`, `seed`, `count`.
        mutants: the sample.
        tests: verdict of each test file on the tree as it is.
        verdicts: verdict by mutant's name.
    """

    facts: dict[str, Any]
    mutants: list[Mutant]
    tests: dict[str, Verdict] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    @classmethod
    def resume(cls, path: Path, facts: dict[str, Any], mutants: list[Mutant]) -> Report:
        """The report of an earlier, interrupted run, or an empty one.

        Raises:
            ValueError: the earlier run was another one.
        """
        report = cls(facts, mutants)
        if not path.exists():
            return report
        stored = json.loads(path.read_text(encoding="utf-8"))
        for name, value in facts.items():
            if stored["facts"][name] != value:
                raise ValueError(f"{name}={value}: {path} has {stored['facts'][name]}; take another folder")
        report.tests = {name: Verdict(**verdict) for name, verdict in stored["tests"].items()}
        known = {mutant.name for mutant in mutants}
        report.verdicts = {
            each["name"]: Verdict(**each["verdict"])
            for each in stored["mutants"]
            if each["verdict"] and each["name"] in known
        }
        return report

    def write(self, path: Path) -> None:
        """Writes the JSON; a kill leaves the earlier one."""
        mutants = [
            {"name": each.name, **asdict(each), "verdict": _plain(self.verdicts.get(each.name))}
            for each in self.mutants
        ]
        tests = {name: _plain(verdict) for name, verdict in sorted(self.tests.items())}
        text = json.dumps({"facts": self.facts, "tests": tests, "mutants": mutants}, indent=1)
        part = path.with_suffix(".part")
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)

    @property
    def share(self) -> float:
        """Noticed of those tested; 0 if none was."""
        counts = Counter(verdict.status for verdict in self.verdicts.values())
        noticed = counts["failed"] + counts["timeout"]
        return noticed / tested if (tested := noticed + counts["passed"]) else 0.0

    def markdown(self, equivalent: Mapping[str, str]) -> str:
        """The page: shares by part, test times, and every survivor with what is known of it.

        Args:
            equivalent: a word on each survivor that changes nothing, by the mutant's name.
        """
        parts: dict[str, Counter[str]] = defaultdict(Counter)
        for mutant in self.mutants:
            verdict = self.verdicts.get(mutant.name)
            part = "/".join(PurePosixPath(mutant.file).parts[1:3])
            parts[part][NOTICED[verdict.status].split(":")[0] if verdict else "not run yet"] += 1
        columns = ["noticed", "SURVIVED", "NOT TESTED", "not run yet"]
        lines = ["# Mutants", "", f"{', '.join(f'{name} {value}' for name, value in self.facts.items())}.", ""]
        lines += [f"Noticed: **{100 * self.share:.1f} %** of {len(self.verdicts)} run, {len(self.mutants)} drawn.", ""]
        lines += [f"| part | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
        lines += [
            f"| {part} | {' | '.join(str(counts[name]) for name in columns)} |"
            for part, counts in sorted(parts.items())
        ]
        lines += ["", "## Not noticed", ""]
        for mutant in self.mutants:
            verdict = self.verdicts.get(mutant.name)
            if verdict and verdict.status in ("passed", "error"):
                word = f" Equivalent: {equivalent[mutant.name]}" if mutant.name in equivalent else ""
                head = f"`{mutant.name}` {mutant.file}:{mutant.line}, {mutant.operator.split('/')[-1]}"
                lines += [f"* {head}: {NOTICED[verdict.status]}.{word}", "", "  ```diff"]
                lines += [*(f"  {line}" for line in mutant.diff.splitlines()), "  ```", ""]
        lines += ["## Seconds of each test file", "", "| file | seconds |", "|---|---:|"]
        lines += [f"| {name} | {verdict.seconds:.0f} |" for name, verdict in sorted(self.tests.items())]
        return "\n".join(lines) + "\n"


def _plain(verdict: Verdict | None) -> dict[str, Any] | None:
    return None if verdict is None else asdict(verdict)
