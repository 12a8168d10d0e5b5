"""Batches hold prompts of like length, the longest first; lengths are found without decoding images."""

import io
from typing import Any

import pytest
from datasets import Dataset, Features, Image, List, Value
from lmms.tiny_runs import checkpoint, make_model, make_requests
from lmms_eval.api.instance import Instance
from PIL import Image as Pictures

from swiftvlm_eval.lmms.batching import ImageSizes, batches, estimated_lengths

GREEDY, OTHER, SAMPLED = {"max_new_tokens": 3}, {"max_new_tokens": 9}, {"do_sample": True, "temperature": 0.5}


def asked(*generation: dict[str, Any]) -> list[Instance]:
    return make_requests(make_model("vanilla"), generation)


def test_one_at_a_time_keeps_the_order_and_asks_for_no_length() -> None:
    requests = asked(GREEDY, OTHER, GREEDY)
    assert batches(requests, 1, lambda: pytest.fail("nobody needs it")) == [[0], [2], [1]]
    assert batches(requests, 2) == [[0, 2], [1]]


def test_batches_are_filled_by_length_from_the_longest_down() -> None:
    requests = asked(*[GREEDY] * 7)
    assert batches(requests, 3, lambda: [5, 9, 1, 9, 7, 2, 8]) == [[1, 3, 6], [4, 0, 5], [2]]


def test_generation_arguments_do_not_mix_and_the_longest_batch_of_all_comes_first() -> None:
    requests = asked(GREEDY, OTHER, GREEDY, OTHER, GREEDY)
    assert batches(requests, 2, lambda: [1, 9, 3, 2, 5]) == [[1, 3], [4, 2], [0]]


def test_sampled_requests_keep_their_order_and_come_last() -> None:
    """They draw from one generator, one after the other."""
    requests = asked(SAMPLED, GREEDY, SAMPLED, GREEDY, SAMPLED)
    assert batches(requests, 2, lambda: [1, 2, 9, 3, 5]) == [[3, 1], [0, 2], [4]]
    greedy = asked(*[{"do_sample": True, "temperature": 0}] * 3)
    assert batches(greedy, 1, None) == [[0], [1], [2]] and batches(greedy, 2, lambda: [1, 2, 3]) == [[2, 1], [0]]


def test_padding_shrinks() -> None:
    lengths = [number * 37 % 64 + 1 for number in range(64)]
    requests = asked(*[GREEDY] * 64)

    def padding(parts: list[list[int]]) -> int:
        return sum(len(part) * max(lengths[n] for n in part) - sum(lengths[n] for n in part) for part in parts)

    assert padding(batches(requests, 8, lambda: lengths)) * 5 < padding(batches(requests, 8))


SIDES = [(40, 30), (17, 90), (25, 25)]


def stored(columns: dict[str, Any], **kinds: Any) -> Dataset:
    return Dataset.from_dict(columns, features=Features(kinds))


def pictures() -> list[Pictures.Image]:
    return [Pictures.new("RGB", side) for side in SIDES]


def test_sizes_come_from_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = pictures()
    plain = stored({"q": ["a", "b", "c"], "picture": [one, None, three]}, q=Value("string"), picture=Image())
    several = stored({"picture": [one, one], "more": [[two, three], []]}, picture=Image(), more=List(Image()))
    monkeypatch.setattr(Pictures.Image, "load", lambda *_: pytest.fail("decoded"))
    assert [ImageSizes(plain).of(number) for number in range(3)] == [[(30, 40)], [], [(25, 25)]]
    assert ImageSizes(plain.select([2, 0])).of(0) == [(25, 25)]
    assert [ImageSizes(several).of(number) for number in range(2)] == [[(30, 40), (90, 17), (25, 25)], [(30, 40)]]


def test_what_cannot_be_read_counts_as_no_image() -> None:
    broken = stored(
        {"picture": [{"bytes": b"no image", "path": None}, {"bytes": None, "path": "/nowhere.png"}]}, picture=Image()
    )
    assert [ImageSizes(broken).of(number) for number in range(2)] == [[], []]
    assert ImageSizes([{"image": pictures()[0]}]).of(0) == []
    assert ImageSizes(stored({"q": ["a"]}, q=Value("string"))).of(0) == []


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_the_estimate_is_the_length_of_the_prompt_but_for_what_all_share(family: str) -> None:
    """Against the processor's own encoding of decoded images."""
    own = checkpoint(family)
    model = make_model("vanilla", family=family)
    requests = make_requests(model, [GREEDY] * 3)
    files = []
    for picture in pictures():
        picture.save(stream := io.BytesIO(), "PNG")
        files.append({"bytes": stream.getvalue(), "path": None})
    documents = {"by_hand": {"test": stored({"image": files}, image=Image())}}
    found = estimated_lengths(requests, own, documents)
    prompts = [model.answering.render(request.args[0], 1) for request in requests]
    encoded = own.encode(prompts, [[picture] for picture in pictures()])
    lengths = encoded["attention_mask"].sum(dim=1).tolist()
    assert len({length - estimate for length, estimate in zip(lengths, found, strict=True)}) == 1
    assert len(set(found)) > 1
