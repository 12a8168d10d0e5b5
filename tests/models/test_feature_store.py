"""Where image features are kept: bounds, files that are not sound, and other processes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from safetensors import safe_open
from safetensors.torch import save_file

from swiftvlm_eval.models import feature_folder
from swiftvlm_eval.models.feature_folder import FeatureFolder
from swiftvlm_eval.models.feature_store import FeatureStore
from swiftvlm_eval.models.image_features import ImageFeatures

BYTES = 4000


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def entry(seed: int = 0, **more: Any) -> ImageFeatures:
    values = torch.randn(1, 10, 100, generator=torch.Generator().manual_seed(seed))
    return ImageFeatures({"features": values}, 9, more.get("size"))


def same(one: ImageFeatures | None, other: ImageFeatures) -> bool:
    assert one is not None and one.parts.keys() == other.parts.keys()
    equal = all(torch.equal(one.parts[name], other.parts[name]) for name in one.parts)
    types = all(one.parts[name].dtype == other.parts[name].dtype for name in one.parts)
    return equal and types and (one.visual_tokens, one.size) == (other.visual_tokens, other.size)


def test_memory_first_then_the_folder_then_nowhere(tmp_path: Path, said: list[str]) -> None:
    store = FeatureStore(2 * BYTES, FeatureFolder(tmp_path / "features", "maker", 3 * 2 * BYTES))
    kept = [store.put(f"image{number}", entry(number)) for number in range(8)]
    files = sorted(path.name for path in (tmp_path / "features").rglob("*.safetensors"))
    assert kept == [True] * (2 + len(files)) + [False] * (6 - len(files)) and 1 <= len(files) < 6
    assert files[0] == "image2.safetensors" and store.used == 2 * BYTES
    assert sum(path.stat().st_size for path in (tmp_path / "features").rglob("*.*")) <= 6 * BYTES
    for number, stored in enumerate(kept):
        if stored:
            assert same(store.get(f"image{number}"), entry(number))
        else:
            assert store.get(f"image{number}") is None
    assert len(said) == 1 and "no room for more image features" in said[0]


def test_a_bound_that_is_too_small_for_one_entry_stores_nothing(tmp_path: Path, said: list[str]) -> None:
    store = FeatureStore(BYTES - 1, FeatureFolder(tmp_path, "maker", BYTES))
    assert not store.put("image", entry()) and store.get("image") is None and store.used == 0
    assert not list(tmp_path.rglob("*.*")) and len(said) == 1


def test_what_is_in_stays_in() -> None:
    store = FeatureStore(2 * BYTES)
    for _ in range(3):  # as cells do: all images, in the same order
        for number in range(5):
            if store.get(str(number)) is None:
                store.put(str(number), entry(number))
    assert [number for number in range(5) if store.get(str(number))] == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_brings_back_every_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    parts = {"features": entry().parts["features"].to(dtype), "states": torch.randn(3, 1, 10, 100).to(dtype)}
    given = ImageFeatures(parts, 77, (50, 70))
    assert FeatureFolder(tmp_path, "maker", 1 << 20).write("image", given)
    assert same(FeatureFolder(tmp_path, "maker", 1 << 20).read("image"), given)
    assert FeatureFolder(tmp_path, "another", 1 << 20).read("image") is None


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def of_another_image(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    save_file({"features": entry(5).parts["features"]}, path, metadata=said)


def without_checksum(path: Path) -> None:
    save_file(dict(entry().parts), path)


@pytest.mark.parametrize("spoil", [truncated, flipped, emptied, of_another_image, without_checksum])
def test_a_file_that_is_not_sound_is_refused_and_made_anew(tmp_path: Path, said: list[str], spoil: Any) -> None:
    folder = FeatureFolder(tmp_path, "maker", 1 << 20)
    folder.write("image", entry())
    path = tmp_path / "maker" / "image.safetensors"
    spoil(path)
    store = FeatureStore(0, folder)
    assert store.get("image") is None and not path.exists()
    assert len(said) == 1 and "maker/image.safetensors: refused" in said[0] and "encoded anew" in said[0]
    assert store.put("image", entry()) and same(store.get("image"), entry())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_never_stored(tmp_path: Path, said: list[str], value: float) -> None:
    store = FeatureStore(1 << 20, FeatureFolder(tmp_path, "maker", 1 << 20))
    bad = entry()
    bad.parts["features"][0, 3, 7] = value
    for _ in range(2):
        assert not store.put("image", bad)
    assert store.get("image") is None and not list(tmp_path.rglob("*.*"))
    assert len(said) == 1 and "image image" in said[0] and "not finite" in said[0]


def test_old_entries_of_other_makers_go_first_and_new_ones_stay(tmp_path: Path) -> None:
    other = FeatureFolder(tmp_path, "other", 1 << 20)
    for number in range(3):
        other.write(f"old{number}", entry(number))
        path = tmp_path / "other" / f"old{number}.safetensors"
        long_ago = time.time() - 1000 + 100 * number
        os.utime(path, (long_ago, long_ago))
    size = path.stat().st_size
    folder = FeatureFolder(tmp_path, "maker", 4 * size + 4096)
    other.write("new", entry(9))
    assert folder.write("a", entry(1))
    left = {path.name for path in tmp_path.rglob("*.safetensors")}
    assert left == {"old1.safetensors", "old2.safetensors", "new.safetensors", "a.safetensors"}
    assert folder.write("b", entry(2)) and folder.write("c", entry(3))
    assert not folder.write("d", entry(4))  # a neighbour's new entry and those of its own are not thrown out
    left = {path.name for path in tmp_path.rglob("*.safetensors")}
    assert left == {"new.safetensors", "a.safetensors", "b.safetensors", "c.safetensors"}


def test_a_writer_that_is_killed_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(parts: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    folder = FeatureFolder(tmp_path, "maker", 1 << 20)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(feature_folder, "save_file", killed)
        folder.write("image", entry())
    assert folder.read("image") is None and not list(tmp_path.rglob("*.safetensors"))
    assert folder.write("image", entry()) and same(folder.read("image"), entry())


def test_processes_share_the_folder(tmp_path: Path) -> None:
    one, two = (FeatureFolder(tmp_path, "maker", 1 << 20) for _ in range(2))
    assert one.write("image", entry()) and same(two.read("image"), entry())
    assert two.write("image", entry()) and same(one.read("image"), entry())
    assert len(list(tmp_path.rglob("*.*"))) == 1
    one.clear()
    assert two.read("image") is None and not tmp_path.joinpath("maker").exists()
    assert two.write("image", entry()) and same(two.read("image"), entry())


def test_bytes_that_others_write_count(tmp_path: Path) -> None:
    one, two = (FeatureFolder(tmp_path, "maker", 40 * BYTES) for _ in range(2))
    wrote = [(one if number % 2 else two).write(str(number), entry(number)) for number in range(80)]
    assert not all(wrote)
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*.*"))
    assert taken <= 40 * BYTES + feature_folder.LOOK_AGAIN * 2 * BYTES


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "features").write_text("a file", encoding="utf-8")
    folder = FeatureFolder(tmp_path / "features", "maker", 1 << 20)
    assert not folder.write("image", entry()) and not folder.write("image", entry())
    assert len(said) == 1 and "features: nothing more is stored there" in said[0]
