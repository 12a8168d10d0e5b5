"""Operations and host synchronisations per prefill beyond those of the stock model, of two states of the repository.

    git worktree add ../before REVISION
    python scripts/benchmarks/prefill_operations.py ../before . --methods fastv,swiftvlm

The model is narrow, since counts do not depend on width: it has 32 layers and as many visual tokens as asked for.
Every state runs in a process of its own. An operation is one that computes; views do not count.
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

METHODS = "vanilla,fastv,pdrop,sparsevlm,sparsevlm_v1,sparsevlm_plus,swiftvlm,visionzip"


def counts(methods: list[str], batches: list[int], side: int, layers: int) -> list[dict[str, Any]]:
    """One row a batch size and method: operations and waits, and those of the stock model."""
    import torch

    from benchmarks.counted import counted
    from benchmarks.small_llava import prompts, small_llava
    from swiftvlm_eval import make_method, prune

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    model, rows = small_llava(side, layers=layers).to(device), []
    for batch in batches:
        inputs = {name: value.to(device) for name, value in prompts(side, batch).items()}
        stock = (0, 0)
        for name in ["stock", *methods]:
            budget = 1 if name == "vanilla" else 1 / 3
            block = nullcontext() if name == "stock" else prune(model, make_method(name), budget=budget)
            with block, torch.no_grad():
                model(**inputs, use_cache=True)
                with counted() as found:
                    model(**inputs, use_cache=True)
            own = found.operations.total(), found.waits.total()
            stock = own if name == "stock" else stock
            rows.append(
                {"batch": batch, "method": name, "operations": own[0] - stock[0], "waits": own[1] - stock[1]}
                if name != "stock"
                else {"batch": batch, "method": name, "operations": own[0], "waits": own[1]}
            )
    return rows


def of_tree(tree: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The counts of one state, from a process that imports it; the scripts are these."""
    scripts = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tree.resolve()}:{scripts}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--count", "--methods", given.methods, "--batches", given.batches]
    command += ["--side", str(given.side), "--layers", str(given.layers)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints a line a batch size and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, nargs="*", help="states of the repository, the earlier one first")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--side", type=int, default=24, help="patches along one side")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        batches = [int(batch) for batch in given.batches.split(",")]
        print(json.dumps(counts(given.methods.split(","), batches, given.side, given.layers)))
        return
    states = [of_tree(tree, given) for tree in given.trees or [Path(__file__).resolve().parents[2]]]
    print("beyond the stock model: operations / waits, " + " -> ".join(str(tree) for tree in given.trees))
    for lines in zip(*states, strict=True):
        told = " -> ".join(f"{line['operations']} / {line['waits']}" for line in lines)
        print(f"batch {lines[0]['batch']}  {lines[0]['method']:16s}  {told}")


if __name__ == "__main__":
    main()
