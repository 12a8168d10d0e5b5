"""Image features in a folder that any number of processes may share, bounded in bytes.

One safetensors file an image, below a folder named after all that made it (`<root>/<maker>/<image>.safetensors`). A
file appears whole or not at all, and carries a checksum of its tensors: what does not match is deleted, and said.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import get_ident

import torch
from loguru import logger
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from swiftvlm_eval.models.image_features import ImageFeatures

LOOK_AGAIN = 16
"""Entries before the bytes that others have written are counted again."""


class FeatureFolder:
    """The entries of one maker, and those of others as far as they take room.

    Entries of this maker stay: images come in the same order in every run, and throwing out the oldest would leave
    nothing for the next one. Where room is needed, entries of other makers go that are older than this object.

    Args:
        root: holds a folder for each maker; made when the first entry comes.
        maker: names model, type and preprocessing.
        bound: bytes of all files below `root`; several processes may pass it by a few entries.
    """

    def __init__(self, root: Path, maker: str, bound: int) -> None:
        self.root = root
        self.bound = bound
        self._own = root / maker
        self._opened = time.time()
        self._bytes: int | None = None  # below the root, as far as this process knows
        self._asked = 0
        self._usable = True

    def read(self, image: str) -> ImageFeatures | None:
        """The entry of an image, None if there is none; one that is not sound is deleted, which a warning says."""
        path = self._path(image)
        try:
            with safe_open(path, framework="pt") as file:
                said: Mapping[str, str] = file.metadata() or {}
                parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if said.get("checksum") != checksum(parts):
                raise ValueError("its checksum is not that of its tensors")
            size = json.loads(said["size"])
            return ImageFeatures(parts, int(said["visual_tokens"]), None if size is None else (size[0], size[1]))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            logger.warning("{}/{}: refused ({}); the image is encoded anew", path.parent.name, path.name, reason)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            self._bytes = None
            return None

    def write(self, image: str, entry: ImageFeatures) -> bool:
        """Stores an entry; False if there is no room, or the folder cannot be written, which a warning says once."""
        path, needed = self._path(image), entry.nbytes + 4096  # with the file's header
        if not self._usable or not self._room_for(needed):
            return False
        part = path.with_name(f".{image}.{os.getpid()}.{get_ident()}.part")
        said = {
            "checksum": checksum(entry.parts),
            "visual_tokens": str(entry.visual_tokens),
            "size": json.dumps(entry.size),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(dict(entry.parts), part, metadata=said)
            written = part.stat().st_size
            part.replace(path)
        except (OSError, SafetensorError) as error:
            self._usable = False
            reason = getattr(error, "strerror", None) or error
            logger.warning("{}: nothing more is stored there ({})", self.root.name, reason)
            with suppress(OSError):
                part.unlink(missing_ok=True)
            return False
        self._bytes = (self._bytes or 0) + written
        return True

    def clear(self) -> None:
        """Deletes the entries of this maker, and the root with them if nothing else is there."""
        shutil.rmtree(self._own, ignore_errors=True)
        if self.root.is_dir() and not any(self.root.iterdir()):
            shutil.rmtree(self.root, ignore_errors=True)

    def _path(self, image: str) -> Path:
        return self._own / f"{image}.safetensors"

    def _room_for(self, needed: int) -> bool:
        """Whether so many bytes more stay within the bound, if need be after others' old entries have gone."""
        self._asked += 1
        if self._bytes is None or self._asked % LOOK_AGAIN == 0:
            self._bytes = sum(size for _, size, _ in self._files())
        if self._bytes + needed <= self.bound:
            return True
        for changed, size, path in sorted(file for file in self._files() if file[2].parent != self._own):
            if changed >= self._opened:
                break
            path.unlink(missing_ok=True)
            self._bytes -= size
            if self._bytes + needed <= self.bound:
                return True
        return False

    def _files(self) -> list[tuple[float, int, Path]]:
        """(time of change, bytes, path) of everything below the root."""
        found = []
        for path in self.root.glob("*/*"):
            try:
                facts = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            found.append((facts.st_mtime, facts.st_size, path))
        return found


def checksum(parts: Mapping[str, Tensor]) -> str:
    """32 hexadecimal digits of BLAKE2b over names, types, shapes and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, part in sorted(parts.items()):
        digest.update(f"{name} {part.dtype} {list(part.shape)} ".encode())
        digest.update(part.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
