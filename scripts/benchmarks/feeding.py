"""What look-ahead and batches by length change: padding, and the time that it takes to answer.

    python scripts/benchmarks/feeding.py --family llava_next --batch-size 8

Documents are pictures of several shapes with questions of several lengths, stored as JPEG files in a data set of
Hugging Face's, and the model is narrow, so that reading and preprocessing weigh about as much as the model, as they do
beside a GPU. All four ways answer the same documents in one process, in turns. Printed are the share of all prompt
positions that is padding, the median over rounds of the time as a share of the first way's in the same round, and how
many answers are those of the first way. On a CPU the model itself uses the processors, so that look-ahead has little
to gain; beside a GPU they are idle.
"""

import argparse
import io
import time
from statistics import median
from typing import Any
from unittest.mock import patch

SIZES = [(1024, 768), (640, 480), (480, 640), (1200, 400), (400, 1200), (800, 800)]
WAYS = {
    "in order, nothing ahead": (False, 0),
    "in order, two ahead": (False, 2),
    "by length, nothing ahead": (True, 0),
    "by length, two ahead": (True, 2),
}


def documents(count: int) -> Any:
    """A data set of pictures and questions."""
    from datasets import Dataset, Features, Image, Value

    from swiftvlm_eval.testing.tiny_models import make_image

    rows: dict[str, list[Any]] = {"image": [], "question": []}
    for number in range(count):
        make_image(*SIZES[number * 5 % len(SIZES)], number).save(stream := io.BytesIO(), "JPEG")
        rows["image"].append({"bytes": stream.getvalue(), "path": None})
        rows["question"].append("Is there a red square? " * (1 + number * 7 % 20))
    return Dataset.from_dict(rows, features=Features({"image": Image(), "question": Value("string")}))


def requests_of(held: Any, tokens: int) -> list[Any]:
    """A request a document."""
    from lmms_eval.api.instance import Instance

    return [
        Instance(
            "generate_until",
            (question, {"max_new_tokens": tokens}, lambda document: [document["image"]], number, "task", "test"),
            0,
            {"task": "task", "doc_id": number, "repeats": 1, "split": "test"},
        )
        for number, question in enumerate(held["question"])
    ]


def answered(
    checkpoint: Any, held: Any, given: argparse.Namespace, by_length: bool, look_ahead: int
) -> tuple[float, float, list[str]]:
    """Seconds, share of padding, and the answers."""
    from swiftvlm_eval.lmms import model as models

    model = models.model_class(given.family)(
        checkpoint=checkpoint,
        method=given.method,
        budget=given.budget,
        batch_size=given.batch_size,
        look_ahead=look_ahead,
        device="cpu" if checkpoint.model.device.type == "cpu" else "auto",
        on_answers=lambda count: None,
    )
    model.task_dict = {"task": {"test": held}}
    positions, text = [0], [0]
    move = checkpoint.to_device

    def counting(inputs: Any) -> Any:
        positions[0] += inputs["attention_mask"].numel()
        text[0] += int(inputs["attention_mask"].sum())
        return move(inputs)

    equal = patch.object(models, "estimated_lengths", lambda requests, *_: [0] * len(requests))  # keeps their order
    with patch.object(checkpoint, "to_device", counting):
        begun = time.perf_counter()
        if by_length:
            made = model.generate_until(requests_of(held, given.tokens))
        else:
            with equal:
                made = model.generate_until(requests_of(held, given.tokens))
        took = time.perf_counter() - begun
    return took, 1 - text[0] / positions[0], [answer.text for answer in made]


def main() -> None:
    """Prints a line a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=("llava", "llava_next"), default="llava_next")
    parser.add_argument("--grid", type=int, default=12, help="patches along one side of a tile")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--method", default="swiftvlm")
    parser.add_argument("--budget", default="1/2")
    parser.add_argument("--documents", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4, help="most tokens of an answer")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    import torch
    from tqdm import tqdm

    from swiftvlm_eval.models.checkpoint import Checkpoint
    from swiftvlm_eval.testing.tiny_models import tiny_llava, tiny_llava_next

    build = tiny_llava if given.family == "llava" else tiny_llava_next
    checkpoint = Checkpoint("tiny", None, *build(grid=given.grid, layers=given.layers))
    if torch.cuda.is_available():
        checkpoint.model.to("cuda")
    held = documents(given.documents)
    rounds = []
    for _ in tqdm(range(given.rounds + 1)):
        rounds.append({name: answered(checkpoint, held, given, *way) for name, way in WAYS.items()})
    first = next(iter(WAYS))
    print(f"{given.family}, batches of {given.batch_size}, {given.documents} documents, {given.rounds} rounds")
    print(f"{'':26s} {'padding':>8s} {'time':>6s}   same answers")
    for name in WAYS:
        shares = [one[name][0] / one[first][0] for one in rounds[1:]]
        same = sum(ours == theirs for ours, theirs in zip(rounds[0][name][2], rounds[0][first][2], strict=True))
        print(f"{name:26s} {rounds[0][name][1]:8.1%} {median(shares):6.2f}   {same} of {given.documents}")


if __name__ == "__main__":
    main()
