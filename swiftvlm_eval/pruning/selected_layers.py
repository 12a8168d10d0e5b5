"""`layers=auto:FILE`: the boundaries that `swiftvlm-eval select-layers` chose for one model, in its `layers.json`."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from swiftvlm_eval.models.adapter import FamilyAdapter
from swiftvlm_eval.models.weights import content_digest

PREFIX = "auto:"
LAYERS_FORMAT = "swiftvlm-eval layer choice 1"
LARGEST_FILE = 1 << 20


class ProfiledModel(BaseModel):
    """The model that a profile was made of.

    Attributes:
        name: as records call it.
        content: hash of config and weights (`models.weights.content_digest`); it depends on the dtype, too.
        dtype: in which it ran.
        num_layers: decoder layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    content: str
    dtype: str
    num_layers: int = Field(ge=4)


class ChosenLayers(BaseModel):
    """A set of layers and what it is worth.

    Attributes:
        layers: as in the paper, from 1.
        boundaries: as ours: the first stage acts after its layer, later ones before theirs.
        objective: P(S) of equation 7 (arXiv 2602.03134).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[int, ...]
    boundaries: tuple[int, ...]
    objective: float

    @model_validator(mode="after")
    def _boundaries_are_those_of_the_layers(self) -> "ChosenLayers":
        if self.boundaries != (*self.layers[:1], *(layer - 1 for layer in self.layers[1:])):
            raise ValueError(f"boundaries {list(self.boundaries)} are not those of layers {list(self.layers)}")
        if any(low >= high for low, high in itertools.pairwise((0, *self.boundaries))):
            raise ValueError(f"boundaries {list(self.boundaries)} do not ascend")
        return self


class LayersFile(BaseModel):
    """What this reads of `layers.json`; the file holds more.

    Attributes:
        format: of the file.
        model: that the layers were chosen for.
        by_stages: the best set of at most 1, 2, ... layers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["swiftvlm-eval layer choice 1"]
    model: ProfiledModel
    by_stages: tuple[ChosenLayers, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fit_the_model(self) -> "LayersFile":
        for stages, chosen in enumerate(self.by_stages, start=1):
            if len(chosen.boundaries) > stages or max(chosen.boundaries, default=0) >= self.model.num_layers:
                raise ValueError(f"by_stages: {list(chosen.boundaries)} for {stages} stages")
        return self


@dataclass(frozen=True)
class SelectedLayers:
    """Boundaries of one model, for as many stages as a method has.

    Attributes:
        file: as typed.
        model: that they are of.
        by_stages: boundaries of the best set of at most 1, 2, ... layers.
    """

    file: str
    model: ProfiledModel
    by_stages: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        """As typed."""
        return f"{PREFIX}{self.file}"

    def boundaries(self, stages: int, num_layers: int, method: str) -> tuple[int, ...]:
        """The boundaries of a method.

        Args:
            stages: how many stages it has.
            num_layers: decoder layers of the model at hand.
            method: its name, for messages.

        Raises:
            ValueError: a decoder of another depth, or fewer layers than stages; the message says what helps.
        """
        if num_layers != self.model.num_layers:
            raise self._refused(
                f"chosen for {self.model.name}, which has {self.model.num_layers} decoder layers; this one has "
                f"{num_layers}"
            )
        if not stages:
            raise self._refused(f"{method} has no stages")
        most = max(map(len, self.by_stages))
        if stages > len(self.by_stages):
            cure = f"run select-layers with --stages {stages}: the samples at hand are used again"
            raise self._refused(f"chosen for up to {len(self.by_stages)} stages, and {method} has {stages}; {cure}")
        chosen = self.by_stages[stages - 1]
        if len(chosen) < stages:
            raise self._refused(
                f"holds {len(chosen)} layers, and {method} has {stages} stages: the profile rises no more often; give "
                f"layers yourself, or take a method with {f'at most {most} stages' if most else 'no stages'}"
            )
        return chosen

    def check(self, adapter: FamilyAdapter) -> None:
        """Refuses another model than the one that the layers were chosen for.

        Raises:
            ValueError: another depth, other weights or another config; or the same model in another dtype.
        """
        own, layers = self.model, adapter.decoder.shape.num_layers
        if layers != own.num_layers:
            raise self._refused(f"chosen for {own.name} of {own.num_layers} decoder layers; this model has {layers}")
        dtype = str(adapter.model.dtype).removeprefix("torch.")
        if dtype != own.dtype:
            raise self._refused(
                f"chosen for {own.name} in {own.dtype}, and this model runs in {dtype}; load it in {own.dtype}, or "
                "run select-layers on it as it is"
            )
        content = content_digest(adapter.model)
        if content != own.content:
            raise self._refused(
                f"chosen for {own.name} (config and weights {own.content}), and this model's are {content}; run "
                "select-layers on it"
            )

    def _refused(self, reason: str) -> ValueError:
        return ValueError(f"layers={self}: {reason}")


Layers = tuple[int, ...] | Annotated[SelectedLayers, WithJsonSchema({"const": f"{PREFIX}FILE"})] | None
"""What the option `layers` may be."""


def read_selected_layers(typed: str) -> SelectedLayers:
    """Reads `auto:FILE`.

    Raises:
        ValueError: no such file, or not a `layers.json` of select-layers; the message says what is wrong with it.
    """
    file = typed.removeprefix(PREFIX)
    try:
        path = Path(file).expanduser()
        if not path.is_file():
            raise ValueError("no such file")
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE} bytes")
        found = LayersFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
    except (OSError, ValueError, RuntimeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
    else:
        return SelectedLayers(file, found.model, tuple(chosen.boundaries for chosen in found.by_stages))
    raise ValueError(f"layers={typed!r}: {reason}; allowed is layers=auto:FILE with a layers.json of select-layers")
