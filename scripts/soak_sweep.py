"""Kills sweeps at random and compares what they leave with one sweep that nobody disturbed.

Several workers sweep the embedded model into one folder at once: first in peace, then with kills, round after round,
until the kills are used up. After each round the records must be those of one quiet sweep, times apart, and nothing
else may be left.

    python scripts/soak_sweep.py --kills 20 --workers 3
"""

import argparse
import contextlib
import gc
import gzip
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from lmms_eval import evaluator  # noqa: F401  (imported once, before the workers are forked)
from lmms_eval.tasks import TaskManager
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration, LlavaProcessor  # noqa: F401

from swiftvlm_eval.lmms.model import PrunedModel  # noqa: F401
from swiftvlm_eval.models.checkpoint import load_checkpoint
from swiftvlm_eval.results import load_records
from swiftvlm_eval.sweep import Sweep, make_grid, parse_methods
from swiftvlm_eval.sweep.documents import Documents

with contextlib.suppress(ImportError):  # lmms-eval tries it before every score
    importlib.import_module("lmms_eval.tasks.amber_g.utils")

TASKS = ["demo_gqa", "demo_pope"]
OTHERS_ARE_AT_IT = 3


def sweep(out: Path, methods: str, limit: int) -> int:
    """One whole sweep in this process; returns its exit status."""
    torch.set_num_threads(1)
    grid = make_grid(parse_methods(methods), ["1/3"], [0, 1])
    outcomes = list(Sweep(load_checkpoint("demo", device="cpu"), Documents(TASKS), out, limit=limit).run(grid))
    return 0 if all(outcome.record for outcome in outcomes) else OTHERS_ARE_AT_IT


def start(out: Path, methods: str, limit: int) -> int:
    """Forks a worker; returns its process id."""
    sys.stdout.flush()
    gc.freeze()  # a worker looks through its own objects alone; lmms-eval asks for it twice a run
    worker = os.fork()
    if worker:
        return worker
    status = 1
    try:
        with (out.parent / "workers.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            status = sweep(out, methods, limit)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def at_work(out: Path, worker: int) -> bool:
    """Whether a worker has claimed a configuration."""
    notes = (note.read_text(encoding="utf-8") for note in (out / "claims").glob("*.json"))
    return any(f'"pid": {worker},' in note for note in notes)


def round_of_sweeps(out: Path, options: argparse.Namespace, kills: int, dice: random.Random) -> tuple[int, int]:
    """Lets workers sweep into one folder until it is complete; returns how many were killed, and while at work."""
    out.mkdir(parents=True)
    workers = [start(out, options.methods, options.limit) for _ in range(options.workers)]
    killed, busy, next_kill = 0, 0, time.monotonic() + dice.uniform(*options.pause)
    while workers:
        time.sleep(0.02)
        for worker in list(workers):
            gone, status = os.waitpid(worker, os.WNOHANG)
            if not gone:
                continue
            workers.remove(worker)
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, OTHERS_ARE_AT_IT):
                sys.exit(f"a worker failed with status {code}:\n{(out.parent / 'workers.log').read_text()[-4000:]}")
            if not workers and code != 0:  # the one it left the work to is gone, too
                workers.append(start(out, options.methods, options.limit))
        if workers and killed < kills and time.monotonic() > next_kill:
            victim = dice.choice([worker for worker in workers if at_work(out, worker)] or workers)
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            busy += at_work(out, victim)
            workers.remove(victim)
            workers.append(start(out, options.methods, options.limit))
            killed, next_kill = killed + 1, time.monotonic() + dice.uniform(*options.pause)
    return killed, busy


def records(out: Path) -> dict[str, Any]:
    """What the records of a folder say, by file name, without times and stamps."""
    found = {}
    for path in sorted((out / "records").rglob("*.record.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        samples = gzip.decompress(path.with_name(record["samples_file"]["name"]).read_bytes()).splitlines()
        for field in ("origin", "wall_time_s", "samples_file"):
            del record[field]
        for task in record["tasks"].values():
            del task["timing"]
        lines = [{**json.loads(line), "prefill_s": None, "total_s": None} for line in samples]
        found[f"{path.parent.name}/{path.name}"] = {"record": record, "samples": lines}
    return found


def check(out: Path, expected: dict[str, Any]) -> None:
    """Ends with a message where a folder holds anything but the expected records and what they were made from."""
    if (found := records(out)) != expected:
        sys.exit(f"{out.name}: other records than of one sweep: {sorted(found)} instead of {sorted(expected)}")
    runs, problems = load_records([out])
    if len(runs) != len(expected) or problems:
        sys.exit(f"{out.name}: {len(runs)} runs are read instead of {len(expected)}; {problems}")
    left = [str(path) for part in ("partial", "claims") for path in (out / part).rglob("*")]
    left += [str(path) for path in out.rglob("*.part")]
    if left:
        sys.exit(f"{out.name}: left behind: {', '.join(left)}")


def main() -> None:
    """Runs the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--limit", type=int, default=4, help="documents per task")
    parser.add_argument("--methods", default="vanilla,fastv,random,swiftvlm")
    parser.add_argument("--pause", type=float, nargs=2, default=(0.5, 6.0), help="seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    # no task of lmms-eval's own is needed
    whole = TaskManager.__init__
    TaskManager.__init__ = lambda self, *args, **kwargs: whole(self, *args, **{**kwargs, "include_defaults": False})
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        alone = argparse.Namespace(**{**vars(options), "workers": 1})
        round_of_sweeps(Path(folder) / "alone", alone, 0, dice)
        expected = records(Path(folder) / "alone")
        check(Path(folder) / "alone", expected)
        print(f"one sweep: {len(expected)} records", flush=True)
        used = number = 0
        while number == 0 or used < options.kills:
            out = Path(folder) / f"round{number}"
            killed, busy = round_of_sweeps(out, options, 0 if number == 0 else options.kills - used, dice)
            check(out, expected)
            print(
                f"{options.workers} sweeps at once, {killed} killed, {busy} of them at work: the same records",
                flush=True,
            )
            used, number = used + killed, number + 1


if __name__ == "__main__":
    main()
