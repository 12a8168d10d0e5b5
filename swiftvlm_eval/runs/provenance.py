"""Where a result comes from: package versions, the commit of this code, and names of checkpoints fit to publish."""

import hashlib
import re
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RECORDED_PACKAGES = (
    "swiftvlm-eval",
    "lmms-eval",
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "datasets",
    "pillow",
)

PACKAGE = Path(__file__).resolve().parents[1]
_LOCAL = "local:"
# Small files that tell two checkpoints apart; weights only count by name and size.
_DESCRIBING_FILES = ("config.json", "trainer_state.json", "*.index.json")
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
_PATH_IN_TEXT = re.compile(r"(?:(?<=file://)|(?<![\w./~-]))(?:~\w*|\.{1,2})?/(?!/)[^\s,;\"'()\[\]{}]+")
_SECRET = re.compile(r"(?:key|token|secret|password)$", re.IGNORECASE)


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a score."""
    found = {}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache
def commit(folder: Path = PACKAGE) -> str | None:
    """The commit of the checkout whose package is `folder`; None outside a git checkout.

    Where files differ from the commit, `+` and 8 hex digits of the difference follow, so that two edited states are
    never taken for one. Of files that git does not know, only the names count.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != folder.parent:
            return None
        head, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", str(folder))
        if not changed:
            return head
        difference = changed + git("diff", "HEAD", "--binary", "--", str(folder))
        return f"{head}+{hashlib.sha256(difference.encode()).hexdigest()[:8]}"
    except (OSError, subprocess.SubprocessError):
        return None


def checkpoint_name(pretrained: str, *, in_place: bool = False) -> str:
    """The name a checkpoint has in a record: a hub id or `demo` as it is, a folder without the folders above it.

    A folder is called `local:<its name>-<8 hex digits>`. The digits come from its config, weight index, trainer state
    and the names and sizes of its weight files, so a copy keeps the name; where the folder cannot be read here, they
    come from its path. Weights are not read: trainings that leave the same small files and equally large weights in
    folders of one name share it.

    Args:
        pretrained: what was asked for.
        in_place: the model was loaded in the present working directory, so a folder of that name here is what it was.
    """
    if pretrained == "demo" or (pretrained.startswith(_LOCAL) and "/" not in pretrained):
        return pretrained
    # a hub id has one slash at most and starts with a letter or a digit
    looks_local = pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1
    if not looks_local and not (in_place and Path(pretrained).is_dir()):
        return pretrained
    try:
        folder = Path(pretrained).expanduser().resolve()
    except (OSError, RuntimeError):  # no such user, or links in a circle
        folder = Path(pretrained)
    return f"{_LOCAL}{folder.name or 'folder'}-{_identity(folder)[:8]}"


def _identity(folder: Path) -> str:
    """SHA-256 of what identifies a checkpoint without reading its weights."""
    parts = []
    try:
        for pattern in _DESCRIBING_FILES:
            for file in sorted(folder.glob(pattern)):
                parts.append(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
        for pattern in _WEIGHT_FILES:
            parts.extend(f"{file.name} {file.stat().st_size}" for file in sorted(folder.glob(pattern)))
    except OSError:
        parts = []
    return hashlib.sha256("\n".join(parts or [str(folder)]).encode()).hexdigest()


def public_arguments(arguments: Mapping[str, str]) -> dict[str, str]:
    """Arguments of a model, with folders named as in `checkpoint_name` and secrets hidden."""
    return {key: "hidden" if _SECRET.search(key) else _public_text(value) for key, value in arguments.items()}


def _public_text(value: str) -> str:
    if value.startswith(("/", "./", "../", "~")):
        return checkpoint_name(value)
    return _PATH_IN_TEXT.sub(lambda found: checkpoint_name(found.group()), value)
