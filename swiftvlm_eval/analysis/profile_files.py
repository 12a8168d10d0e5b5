"""A layer profile on disk: scored samples while it is made, then profile.json, profile.csv, layers.json and a plot."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swiftvlm_eval.analysis.layer_choice import Choice, best_choices
from swiftvlm_eval.analysis.profile_plot import profile_plot
from swiftvlm_eval.analysis.profile_statistics import Profile, ScoredSample, wins
from swiftvlm_eval.leaderboard.compute.statistics import LEVEL
from swiftvlm_eval.pruning.selected_layers import LAYERS_FORMAT, ProfiledModel
from swiftvlm_eval.results.store import write_atomically

PROFILE_FORMAT = "swiftvlm-eval layer profile 1"
PROFILE, TABLE, LAYERS = "profile.json", "profile.csv", "layers.json"
PLOTS = ("profile.png", "profile.svg")
RUNNERS_UP = 5


@dataclass(frozen=True)
class Settings:
    """What makes the answers of a profile what they are.

    Attributes:
        model: profiled.
        revision: of the hub, if one was asked for.
        family: of the model.
        tasks: sorted.
        split: that the documents are of.
        seed: of the draw of documents.
        top: share of the visual tokens that a layer keeps.
        attention: kernel.
        image_mode: how images are prepared.
        code: commit of this package, None outside a checkout.
        versions: of the packages.
    """

    model: ProfiledModel
    revision: str | None
    family: str
    tasks: tuple[str, ...]
    split: str
    seed: int
    top: float
    attention: str
    image_mode: str
    code: str | None
    versions: Mapping[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON holds them."""
        return {**asdict(self), "model": self.model.model_dump(), "tasks": list(self.tasks)}

    @property
    def digest(self) -> str:
        """Names the samples: scores of different settings are never mixed."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class SampleScores:
    """The line of one document.

    Attributes:
        task: of the document.
        doc_id: its number in the split.
        prompt: hash of what was asked, so that another wording is another document.
        scored: its scores.
        not_finite: layers (0: vanilla) whose answers mean nothing.
        num_visual: visual tokens.
        num_text: text tokens.
    """

    task: str
    doc_id: int
    prompt: str
    scored: ScoredSample
    not_finite: tuple[int, ...]
    num_visual: int
    num_text: int


class SampleStore:
    """Scores of samples, one JSON line each, written as soon as they are known; a half line of a kill is ignored.

    Args:
        folder: of the profile.
        settings: name the file.
        num_scores: layers scored; a line with another number does not count.
    """

    def __init__(self, folder: Path, settings: Settings, num_scores: int) -> None:
        self.path = folder / f"samples-{settings.digest}.jsonl"
        self._found: dict[tuple[str, int, str], SampleScores] = {}
        text = self.path.read_bytes().decode(errors="replace") if self.path.exists() else ""
        for line in text.split("\n"):
            try:
                found = json.loads(line)
                scored = ScoredSample(
                    str(found["cluster"]), float(found["vanilla"]), tuple(map(float, found["by_layer"]))
                )
                rest = (tuple(map(int, found["not_finite"])), int(found["num_visual"]), int(found["num_text"]))
                sample = SampleScores(str(found["task"]), int(found["doc_id"]), str(found["prompt"]), scored, *rest)
            except (ValueError, KeyError, TypeError):
                continue
            if len(scored.by_layer) == num_scores:
                self._found[(sample.task, sample.doc_id, sample.prompt)] = sample
        self._cut = bool(text) and not text.endswith("\n")

    def find(self, task: str, doc_id: int, prompt: str) -> SampleScores | None:
        """The scores of a document, None if there are none yet."""
        return self._found.get((task, doc_id, prompt))

    def add(self, sample: SampleScores) -> None:
        """Stores scores at once."""
        facts = {key: value for key, value in asdict(sample).items() if key != "scored"}
        line = json.dumps({**facts, **asdict(sample.scored)}, sort_keys=True) + "\n"
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}" if self._cut else line)
            stream.flush()
            os.fsync(stream.fileno())
        self._cut = False
        self._found[(sample.task, sample.doc_id, sample.prompt)] = sample


def refuse_other_profiles(folder: Path, settings: Settings) -> None:
    """Refuses a folder that holds a profile of something else; that one stays as it is.

    Raises:
        ValueError: the message says which setting differs.
    """
    path = folder / PROFILE
    if not path.exists():
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["settings"]
        differing = sorted(key for key, value in settings.facts.items() if there.get(key) != value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        differing = ["format"]
    if differing:
        raise ValueError(
            f"out={folder}: holds a profile with another {', '.join(differing)}; allowed is an empty folder, or that "
            "of the same profile"
        )


@dataclass(frozen=True)
class Written:
    """What `write_profile` wrote.

    Attributes:
        choice: the best set of at most so many layers as stages were asked for.
        runners_up: the next best ones.
        wins: sets and their shares of the bootstrap draws.
        note: what a reader of the choice must know; empty for nothing.
        files: paths.
    """

    choice: Choice
    runners_up: Sequence[Choice]
    wins: Sequence[tuple[tuple[int, ...], float]]
    note: str
    files: Sequence[Path]


def write_profile(
    folder: Path, settings: Settings, profile: Profile, stages: int, extra: Mapping[str, Any]
) -> Written:
    """Chooses layers and writes all files; the same samples write the same bytes.

    Args:
        folder: of the profile.
        settings: of the answers.
        profile: x of the layers.
        stages: most layers to choose.
        extra: further facts for profile.json: metrics, what was shared, which answers were not finite.
    """
    last = settings.model.num_layers
    best = best_choices(profile.of_layers(), last, stages, count=1 + RUNNERS_UP)
    by_stages = [best_choices(profile.of_layers(), last, most)[0] for most in range(1, stages + 1)]
    frequent = wins(profile, last, stages)
    note = _note(best[0], stages)
    content = {
        PROFILE: _json(_profile_facts(settings, profile, extra)),
        TABLE: _table(profile),
        LAYERS: _json(_layers_facts(settings, profile, best, by_stages, frequent, stages, note)),
    }
    content |= dict(zip(PLOTS, profile_plot(profile, best[0], settings.model.name), strict=True))
    for name, data in content.items():
        write_atomically(folder / name, data)
    return Written(best[0], best[1:], frequent, note, [folder / name for name in content])


def _note(choice: Choice, stages: int) -> str:
    if not choice.layers:
        return "no layer from 3 on has a larger x than layer 2: there is nothing to choose"
    if len(choice.layers) < stages:
        return f"{len(choice.layers)} layers instead of {stages}: the profile rises no more often"
    return ""


def _profile_facts(settings: Settings, profile: Profile, extra: Mapping[str, Any]) -> dict[str, Any]:
    intervals = zip(profile.x, profile.low, profile.high, strict=True)
    return {
        "format": PROFILE_FORMAT,
        "model": settings.model.model_dump(),
        "settings": settings.facts,
        "interval": f"{LEVEL:.0%}, Bayesian bootstrap over images, {len(profile.draws)} draws",
        "layers": [
            {"layer": layer, "x": x, "low": low, "high": high}
            for layer, (x, low, high) in enumerate(intervals, start=2)
        ],
        "tasks": {
            task: {
                "documents": profile.documents[task],
                "images": profile.clusters[task],
                "vanilla": profile.scores[task][0],
                "scores": list(profile.scores[task][1:]),
                "relative": list(relative),
            }
            for task, relative in profile.by_task.items()
        },
        **extra,
    }


def _layers_facts(
    settings: Settings,
    profile: Profile,
    best: Sequence[Choice],
    by_stages: Sequence[Choice],
    frequent: Sequence[tuple[tuple[int, ...], float]],
    stages: int,
    note: str,
) -> dict[str, Any]:
    chosen = best[0].layers
    return {
        "format": LAYERS_FORMAT,
        "model": settings.model.model_dump(),
        "stages": stages,
        **_choice_facts(best[0]),
        "meaning": "layers as in the paper, from 1; stage 1 acts after its layer, later ones before theirs; boundary "
        "b: b layers have run",
        "note": note,
        "by_stages": [_choice_facts(choice) for choice in by_stages],
        "runners_up": [_choice_facts(choice) for choice in best[1:]],
        "stability": {
            "draws": len(profile.draws),
            "chosen_wins": next((share for layers, share in frequent if layers == chosen), 0.0),
            "wins": [{"layers": list(layers), "share": share} for layers, share in frequent[:10]],
        },
    }


def _choice_facts(choice: Choice) -> dict[str, Any]:
    return {"layers": list(choice.layers), "boundaries": list(choice.boundaries), "objective": choice.objective}


def _table(profile: Profile) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["layer", "x", "low", "high", *profile.by_task])
    for number, row in enumerate(zip(profile.x, profile.low, profile.high, strict=True)):
        writer.writerow([number + 2, *row, *(relative[number] for relative in profile.by_task.values())])
    return stream.getvalue().encode()


def _json(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
