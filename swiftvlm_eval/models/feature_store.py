"""Image features at hand: in memory as long as there is room, then in a folder, then not at all."""

from threading import Lock

from loguru import logger

from swiftvlm_eval.models.feature_folder import FeatureFolder
from swiftvlm_eval.models.image_features import ImageFeatures


class FeatureStore:
    """Entries by image. What is in stays in: see `FeatureFolder`. Threads may share it.

    Args:
        memory: bytes that the entries in memory may take.
        folder: for those that no longer fit; None for none.

    Attributes:
        used: bytes taken in memory.
    """

    def __init__(self, memory: int, folder: FeatureFolder | None = None) -> None:
        self.memory = memory
        self.folder = folder
        self.used = 0
        self._entries: dict[str, ImageFeatures] = {}
        self._lock = Lock()
        self._said: set[str] = set()

    def get(self, image: str) -> ImageFeatures | None:
        """The entry of an image, None if there is none."""
        with self._lock:
            if image in self._entries:
                return self._entries[image]
        found = None if self.folder is None else self.folder.read(image)
        if found is not None:
            self._keep(image, found)
        return found

    def put(self, image: str, entry: ImageFeatures) -> bool:
        """Stores an entry; False if there is no room for it, or its numbers are not finite. Warnings say so once."""
        if not entry.finite:
            self._say(image, f"image {image}: the vision tower's numbers are not finite; its features are not stored")
            return False
        if self._keep(image, entry):
            return True
        with self._lock:
            if self.folder is not None and self.folder.write(image, entry):
                return True
        self._say("full", "no room for more image features; images that are not stored are encoded in every run")
        return False

    def clear(self) -> None:
        """Forgets all entries, those in the folder too."""
        with self._lock:
            self._entries, self.used = {}, 0
        if self.folder is not None:
            self.folder.clear()

    def _keep(self, image: str, entry: ImageFeatures) -> bool:
        """Takes an entry into memory if there is room; whether it is there then."""
        with self._lock:
            if image in self._entries:
                return True
            if self.used + entry.nbytes > self.memory:
                return False
            self._entries[image] = entry
            self.used += entry.nbytes
            return True

    def _say(self, about: str, message: str) -> None:
        with self._lock:
            if about in self._said:
                return
            self._said.add(about)
        logger.warning("{}", message)
