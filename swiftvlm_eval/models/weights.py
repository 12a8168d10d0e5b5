"""Reading a checkpoint's weights: all of them, from safetensors alone, and without anybody's code."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

NAMES_SHOWN = 5


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded, with the cure."""


def read_weights(model_class: Any, source: str, *, name: str, revision: str | None = None, **options: Any) -> Any:
    """A model in eval mode with every weight read from the checkpoint.

    The library draws a weight at random that a checkpoint lacks, or has in another shape, and says so in its log
    alone; and it opens a pickle that a safetensors index names. Weights that nothing asks for are named in a warning.

    Args:
        model_class: a class of transformers with `from_pretrained`.
        source: hub id or folder.
        name: the checkpoint as the user calls it, for messages.
        revision: hub revision.
        options: more arguments of `from_pretrained`.

    Raises:
        CheckpointError: a weight is missing or has another shape, or a file is no sound safetensors file.
        OSError: the checkpoint, or a file of it, cannot be had.
    """
    asked = f"pretrained={name!r}"
    files = _weight_files(source, asked, revision)
    try:
        model, report = model_class.from_pretrained(
            source,
            revision=revision,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are in the report, which names all of them
            output_loading_info=True,
            **options,
        )
    except SafetensorError as error:
        broken = next((file for file in files if not _is_sound(source, file, revision)), "its weights")
        raise CheckpointError(f"{asked}: {broken!r} is no sound safetensors file ({first_line(error)})") from error
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    if missing:
        raise CheckpointError(
            f"{asked}: {len(missing)} of the model's weights {'is' if len(missing) == 1 else 'are'} missing and would "
            f"be random: {_some(missing)}; allowed is a checkpoint with every weight that its config asks for"
        )
    if mismatched:
        shapes = [f"{key} ({list(found)} for {list(wanted)})" for key, found, wanted in mismatched]
        raise CheckpointError(
            f"{asked}: {len(shapes)} of the model's weights would be random, for their shape is not the config's: "
            f"{_some(shapes)}; allowed is a checkpoint whose config and weights belong together"
        )
    if unexpected := sorted(report["unexpected_keys"]):
        logger.warning(f"{asked}: {len(unexpected)} weights that the model has no place for: {_some(unexpected)}")
    return model.eval()


def content_digest(model: Any) -> str:
    """Tells two models of one name apart: a hash of the config and of the first values of every weight."""
    settings = {key: value for key, value in model.config.to_diff_dict().items() if key != "_name_or_path"}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    weights = sorted(model.state_dict().items())
    digest.update(torch.cat([value.detach().flatten()[:16].float().cpu() for _, value in weights]).numpy().tobytes())
    return digest.hexdigest()[:16]


def _weight_files(source: str, asked: str, revision: str | None) -> list[str]:
    """Names of the checkpoint's weight files.

    Raises:
        CheckpointError: the index cannot be read, or it or the config names anything but safetensors.
    """
    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    given = getattr(config, "transformers_weights", None)  # the library reads this file before any other
    index = given if str(given).endswith(".index.json") else SAFE_WEIGHTS_INDEX_NAME
    files = {SAFE_WEIGHTS_NAME} if given in (None, index) else {given}
    path = cached_file(source, index, revision=revision, _raise_exceptions_for_missing_entries=False)
    if path is not None:
        try:
            files = set(json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{asked}: {index} is no index of weights ({first_line(error)})") from error
    for file in sorted(files, key=str):
        if not str(file).endswith(".safetensors"):
            by = "config.json" if path is None else index
            raise CheckpointError(f"{asked}: {by} names {file!r}; allowed are safetensors files")
    return sorted(files)


def _is_sound(source: str, file: str, revision: str | None) -> bool:
    """Whether a weight file can be opened."""
    try:
        with safe_open(cached_file(source, file, revision=revision), framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _some(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(list(names)[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
