"""What one configuration costs: a cell of a sweep, with and without stored image features, and a process of its own.

    python scripts/benchmarks/sweep_cell.py --limit 100 --rounds 2

All answer the same questions of the demo benchmark, in batches. The cells run in one process, in turns; before them a
cell of another method fills the store. A process of its own is `python -m lmms_eval`, from its first import to its
last file. Printed are processor and wall seconds, their ratios, and whether all answers are the same. On a machine
that others use, compare processor seconds.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

GRID = "vanilla,random,fastv,swiftvlm"
"""Methods of `swiftvlm-eval demo`, at two budgets: seven configurations."""
CONFIGURATIONS = 7
Seconds = tuple[float, float]


def timed(work: Callable[[], Any]) -> tuple[Seconds, Any]:
    """(processor, wall) seconds of this process, and what the work returns."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return (time.process_time() - processor, time.perf_counter() - wall), found


def answers(folder: Path) -> dict[tuple[str, int], str]:
    """Answers by task and document, from the samples files below a folder of lmms-eval's."""
    found = {}
    for file in folder.rglob("*_samples_*.jsonl"):
        task = file.stem.split("_samples_")[1]
        for line in file.read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            found[task, sample["doc_id"]] = json.dumps(sample["filtered_resps"])
    return found


class Cells:
    """Cells of sweeps in this process.

    Args:
        given: the options.
        scratch: for what the sweeps write.
    """

    def __init__(self, given: argparse.Namespace, scratch: Path) -> None:
        import torch

        from swiftvlm_eval.models.checkpoint import load_checkpoint
        from swiftvlm_eval.sweep.documents import Documents

        torch.set_num_threads(1)
        self.given, self.scratch, self.number = given, scratch, 0
        self.documents = Documents(given.tasks.split(","))
        self.checkpoint = load_checkpoint("demo", device="cpu")
        self.once = self._once() if given.batch_size else None

    def _once(self) -> Any:
        from swiftvlm_eval.sweep import make_grid, parse_methods
        from swiftvlm_eval.sweep.features import Wish, count_images, decide, open_store

        wish, limit = Wish("memory"), self.given.limit
        decided = decide(
            wish,
            self.checkpoint,
            make_grid(parse_methods(f"{GRID},{self.given.methods}"), ["1/3"], visual_tokens=144),
            count=lambda: count_images(self.documents.tasks, limit),
            documents=sum(self.documents.expected(limit).values()),
            batch_size=self.given.batch_size,
        )
        print(decided.said)
        return open_store(decided, wish, self.checkpoint, self.scratch)

    def run(self, method: str, once: Any) -> tuple[Seconds, dict[tuple[str, int], str]]:
        """One cell in a folder of its own."""
        from swiftvlm_eval.sweep import Sweep, make_grid, parse_methods

        self.number += 1
        out = self.scratch / f"cell{self.number}"
        grid = make_grid(parse_methods(method), ["1/3"], visual_tokens=144)
        options = {"batch_size": self.given.batch_size, "limit": self.given.limit, "once": once}
        sweep = Sweep(self.checkpoint, self.documents, out, on_answers=lambda count: None, **options)
        gc.collect()
        took, outcomes = timed(lambda: list(sweep.run(grid)))
        if outcomes[0].status != "done":
            raise RuntimeError(f"{method}: {outcomes[0].reason}")
        return took, answers(out / "lmms_eval")


def own_process(given: argparse.Namespace, method: str, out: Path) -> tuple[Seconds, dict[tuple[str, int], str]]:
    """The same configuration by `lmms_eval`."""
    budget = 1 if method == "vanilla" else "1/3"
    command = [sys.executable, "-m", "lmms_eval", "--model", "swiftvlm_llava", "--tasks", given.tasks]
    command += ["--model_args", f"pretrained=demo,method={method},budget={budget},device=cpu", "--log_samples"]
    command += ["--batch_size", str(given.batch_size), "--limit", str(given.limit), "--output_path", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{method}: lmms_eval ended with status {done.returncode}\n{done.stderr[-2000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (processor, time.perf_counter() - wall), answers(out)


def line(label: str, took: Seconds, whole: Seconds) -> str:
    """A row of the table: seconds, and how many times cheaper than a process of its own."""
    ratios = (f"{theirs / ours:.2f}x" for ours, theirs in zip(took, whole, strict=True))
    return f"{label:34s} {took[0]:8.1f} {took[1]:8.1f}   " + "  ".join(f"{ratio:>7s}" for ratio in ratios)


def main() -> None:
    """Prints a table for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="demo")
    parser.add_argument("--methods", default="swiftvlm,fastv", help="measured; vanilla fills the store")
    parser.add_argument("--limit", type=int, default=100, help="questions per task; the demo asks 100")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--profile", metavar="METHOD", help="print where a cell's time goes instead")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        started, cells = timed(lambda: Cells(given, scratch))
        first, _ = cells.run("vanilla", cells.once)
        if given.profile:
            profile(cells, given.profile)
            return
        print(f"start of a sweep {started[0]:.1f} s, its first cell (vanilla, fills the store) {first[0]:.1f} s")
        for method in given.methods.split(","):
            compare(cells, method, started, first)


def compare(cells: Cells, method: str, started: Seconds, first: Seconds) -> None:
    """Measures one method three ways, in turns, and compares the answers."""
    ways: dict[str, Callable[[int], tuple[Seconds, dict[tuple[str, int], str]]]] = {
        "cell of a sweep, features stored": lambda number: cells.run(method, cells.once),
        "cell of a sweep, tower run anew": lambda number: cells.run(method, None),
        "process of its own (lmms_eval)": lambda number: own_process(
            cells.given, method, cells.scratch / f"{method}{number}"
        ),
    }
    took: dict[str, list[Seconds]] = {way: [] for way in ways}
    seen = []
    for number in range(cells.given.rounds):
        for way, run in ways.items():
            seconds, found = run(number)
            took[way].append(seconds)
            seen.append(found)
    middle = {way: (median(s[0] for s in each), median(s[1] for s in each)) for way, each in took.items()}
    whole = middle["process of its own (lmms_eval)"]
    print(f"\n{method} 1/3, batch {cells.given.batch_size}, {len(seen[0])} questions, median of {cells.given.rounds}")
    print(f"{'':34s} {'CPU s':>8s} {'wall s':>8s}   {'CPU':>7s}  {'wall':>7s}")
    for way, seconds in middle.items():
        print(line(way, seconds, whole))
    stored = middle["cell of a sweep, features stored"]
    rest = CONFIGURATIONS - 1
    grid = tuple((a + b + rest * c) / CONFIGURATIONS for a, b, c in zip(started, first, stored, strict=True))
    print(line(f"sweep of {CONFIGURATIONS}, per configuration", (grid[0], grid[1]), whole))
    differing = [key for key in seen[0] if any(found.get(key) != seen[0][key] for found in seen)]
    complete = all(found.keys() == seen[0].keys() for found in seen)
    print(
        "answers: all the same" if complete and not differing else f"answers: {len(differing)} DIFFER {differing[:3]}"
    )


def profile(cells: Cells, method: str) -> None:
    """Prints the functions in which a cell with stored features spends its time."""
    import cProfile
    import pstats

    watch = cProfile.Profile()
    watch.enable()
    cells.run(method, cells.once)
    watch.disable()
    pstats.Stats(watch).sort_stats("cumulative").print_stats(120)


if __name__ == "__main__":
    main()
