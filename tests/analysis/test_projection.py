"""Two dimensions of waiting tokens: a plane that is known, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from swiftvlm_eval.analysis.drift import Waiting
from swiftvlm_eval.analysis.projection import project, projection_picture

HIDDEN, TOKENS = 6, 12


def a_plane() -> tuple[Tensor, Tensor]:
    """Coordinates [TOKENS, 2], wider along the first axis, and the directions [2, HIDDEN] along which they count."""
    generator = torch.Generator().manual_seed(3)
    coordinates = torch.randn(TOKENS, 2, generator=generator, dtype=torch.float64) * torch.tensor([5.0, 1.0])
    directions, _ = torch.linalg.qr(torch.randn(HIDDEN, 2, generator=generator, dtype=torch.float64))
    return coordinates, directions.T


def waiting_in(states: Tensor, stored: Tensor) -> Waiting:
    return Waiting(states, torch.arange(TOKENS), stored, torch.zeros(TOKENS, dtype=torch.int64))


def test_a_plane_is_found_and_its_distances_kept() -> None:
    coordinates, directions = a_plane()
    unpruned = coordinates @ directions + 7.0
    moved = torch.tensor([2.0, -1.0], dtype=torch.float64) @ directions
    away = torch.zeros(HIDDEN, dtype=torch.float64)
    found = project(waiting_in(unpruned + moved, unpruned + away), unpruned, "swiftvlm", 4)
    points = found.points["unpruned"]
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert apart == pytest.approx(torch.cdist(coordinates, coordinates).numpy())
    assert np.linalg.norm(found.points["aligned"] - points, axis=1) == pytest.approx(np.full(TOKENS, 5**0.5))
    assert found.points["stored"] == pytest.approx(points)
    assert found.explained[0] > found.explained[1] and sum(found.explained) == pytest.approx(1.0)
    spread = torch.linalg.svdvals(coordinates - coordinates.mean(dim=0)) ** 2
    assert found.explained == pytest.approx((spread / spread.sum()).tolist())


def test_what_leaves_the_plane_lies_where_it_is_seen_from_above() -> None:
    coordinates, directions = a_plane()
    unpruned = coordinates @ directions
    normal = torch.linalg.svd(directions, full_matrices=True).Vh[2]
    found = project(waiting_in(unpruned + 4 * normal, unpruned), unpruned, "swiftvlm", 4)
    assert found.points["aligned"] == pytest.approx(found.points["unpruned"])


def test_two_tokens_span_no_plane() -> None:
    states = torch.eye(HIDDEN)
    two = Waiting(states, torch.tensor([0, 2]), states[:2], torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="swiftvlm: 2 tokens wait after layer 4; allowed are 3 or more"):
        project(two, states, "swiftvlm", 4)


def test_without_scikit_learn_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(ImportError, match=r"pip install 'swiftvlm-eval\[projection\]'"):
        project(waiting_in(torch.eye(TOKENS), torch.eye(TOKENS)), torch.eye(TOKENS), "swiftvlm", 4)


def test_every_projection_has_a_panel_with_its_share_of_variance() -> None:
    coordinates, directions = a_plane()
    unpruned = coordinates @ directions
    found = project(waiting_in(unpruned, unpruned), unpruned, "swiftvlm", 4)
    panels = projection_picture([found, found], "demo_refcoco/1").axes
    assert len(panels) == 2
    assert panels[0].get_title().endswith("back before layer 5")
    assert f"{found.explained[0]:.0%}" in panels[0].get_xlabel()
