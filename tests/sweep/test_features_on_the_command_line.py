"""`sweep --features`: what it says before it starts, and what it leaves in the folder."""

from pathlib import Path
from typing import Any

import pytest
from command_line import run

from swiftvlm_eval.cli import sweeping
from swiftvlm_eval.models.encode_once import EncodeOnce


def sweep(out: Path, *options: str, methods: str = "vanilla,fastv", batch_size: int = 8) -> tuple[int, str]:
    asked = ("--model", "demo", "--tasks", "demo_gqa", "--limit", "4", "--device", "cpu", "--budgets", "1/3")
    status, _, said = run(
        "sweep", *asked, "--methods", methods, "--batch-size", str(batch_size), "--out", str(out), *options
    )
    return status, said


def test_batches_encode_once_and_single_prompts_do_not(tmp_path: Path) -> None:
    status, said = sweep(tmp_path / "eight")
    assert status == 0 and "images are encoded once for 2 configurations and take at most" in said
    assert "4 GiB of memory, then 16 GiB of the folder `features`; answers are not timed" in said
    status, said = sweep(tmp_path / "one", batch_size=1, methods="vanilla")
    assert status == 0 and "image features: off; every configuration encodes its images itself" in said


def test_off_is_off_and_too_little_room_is_said(tmp_path: Path) -> None:
    assert "image features: off; every configuration" in sweep(tmp_path / "a", "--features", "off")[1]
    little = ("--features-memory", "0", "--features-folder", "0.000001")
    status, said = sweep(tmp_path / "b", *little)
    assert status == 0 and "does not fit into 0 GiB of memory, then 1e-06 GiB of the folder" in said
    assert not (tmp_path / "b" / "features").exists()
    assert sweep(tmp_path / "c", "--features", "disk")[0] == 2


def test_the_folder_goes_with_a_complete_grid_and_stays_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[EncodeOnce] = []
    stock = sweeping.encode_once

    def noted(*given: Any) -> EncodeOnce:
        made.append(stock(*given))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(sweeping, "encode_once", noted)
    folder = ("--features", "folder", "--features-memory", "0")
    status, said = sweep(tmp_path, *folder, methods="vanilla,fastv[layers=9]")
    files = list((tmp_path / "features").rglob("*.safetensors"))
    assert status == 1 and "refused" in said and len(files) == made[0].encoded > 0
    status, said = sweep(tmp_path, *folder, methods="vanilla,fastv,random")
    assert status == 0 and made[1].encoded == 0 and made[1].found == 8  # two cells of four questions
    assert not (tmp_path / "features").exists()
    status, said = sweep(tmp_path, *folder, methods="vanilla,fastv,random")  # all records are there
    assert status == 0 and "image features" not in said
