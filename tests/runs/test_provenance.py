"""Names of checkpoints and arguments in records: telling, the same from everywhere, without the machine's folders."""

import json
import subprocess
from pathlib import Path

import pytest

from swiftvlm_eval.runs.provenance import checkpoint_name, commit, public_arguments


def checkpoint(folder: Path, weights: int = 10, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", **config}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"x" * weights)
    return folder


@pytest.mark.parametrize("name", ["demo", "llava-hf/llava-1.5-7b-hf", "gpt2", "local:checkpoint-500-0123abcd"])
def test_a_hub_name_and_a_public_name_stay(name: str) -> None:
    assert checkpoint_name(name) == name


def test_one_folder_has_one_name_from_wherever_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "home" / "me" / "ckpt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {checkpoint_name(text) for text in (str(folder), f"{folder}/", "./home/me/ckpt", "home/me/ckpt")}
    names |= {checkpoint_name("~/home/me/ckpt")}
    monkeypatch.chdir(folder.parent)
    names |= {checkpoint_name("./ckpt"), checkpoint_name("ckpt", in_place=True)}
    monkeypatch.chdir(folder)
    names.add(checkpoint_name("."))
    (name,) = names
    assert name.startswith("local:ckpt-") and len(name) == len("local:ckpt-") + 8
    assert checkpoint_name("ckpt") == "ckpt"  # somewhere else it is a name on the hub


def test_a_copy_keeps_its_name(tmp_path: Path) -> None:
    assert checkpoint_name(str(checkpoint(tmp_path / "a" / "c"))) == checkpoint_name(
        str(checkpoint(tmp_path / "b" / "c"))
    )


@pytest.mark.parametrize("change", ["config", "size", "index", "training"])
def test_folders_of_one_name_are_two_checkpoints(tmp_path: Path, change: str) -> None:
    first = checkpoint(tmp_path / "exp1" / "checkpoint-500")
    config = {"rope_theta": 2} if change == "config" else {}
    other = checkpoint(tmp_path / "exp2" / "checkpoint-500", 11 if change == "size" else 10, **config)
    extra = {"index": "model.safetensors.index.json", "training": "trainer_state.json"}
    if change in extra:
        (other / extra[change]).write_text("{}", encoding="utf-8")
    names = {checkpoint_name(str(first)), checkpoint_name(str(other))}
    assert len(names) == 2
    assert all(name.startswith("local:checkpoint-500-") for name in names)


def test_folders_that_are_not_here_are_told_apart_by_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_name("/absent/exp1/checkpoint-500") != checkpoint_name("/absent/exp2/checkpoint-500")
    assert checkpoint_name("./absent") == checkpoint_name(str(tmp_path / "absent"))
    assert checkpoint_name("/").startswith("local:folder-")
    assert checkpoint_name("~nobody-of-this-name/ckpt").startswith("local:ckpt-")


def test_arguments_lose_folders_and_secrets() -> None:
    given = {
        "budget": "0.2",
        "image": "org/name",
        "base_url": "https://host/v1/models",
        "cache_dir": "/home/me/my models",
        "layers": '["/home/me/a", ~me/b, ./me/c]',
        "log": "file:///home/me/log",
        "api_key": "sk-1",
        "hf_token": "hf_1",
        "max_new_tokens": "5",
    }
    public = public_arguments(given)
    assert "me/" not in json.dumps(public) and "home" not in json.dumps(public)
    assert {key: public[key] for key in ("budget", "image", "base_url", "max_new_tokens")} == {
        key: given[key] for key in ("budget", "image", "base_url", "max_new_tokens")
    }
    assert (public["api_key"], public["hf_token"]) == ("hidden", "hidden")
    assert public["cache_dir"].startswith("local:my models-")
    assert public_arguments({"cache_dir": "/home/you/my models"}) != {"cache_dir": public["cache_dir"]}


def test_edited_states_of_one_commit_are_told_apart(tmp_path: Path) -> None:
    def state() -> str:
        commit.cache_clear()
        found = commit(tmp_path / "package")
        assert found is not None
        return found

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    assert commit(file.parent) is None
    file.write_text("a = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = state()
    assert len(clean) == 40
    states = []
    for text in ("a = 2\n", "a = 3\n"):
        file.write_text(text)
        states.append(state())
    assert len({*states, clean}) == 3 and all(each.startswith(f"{clean}+") and len(each) == 49 for each in states)
    file.write_text("a = 1\n")
    assert state() == clean
