"""What a few rows leave of the others after a least-squares fit, by hand and in float64."""

import torch

from swiftvlm_eval.pruning.selection import farthest_from_mean, residuals


def test_residuals_by_hand() -> None:
    rows = torch.tensor([[2.0, 0, 0], [0, 3, 0], [4, 5, 0], [4, 5, 12], [0, 0, -7]])
    found = residuals(rows, torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0, 0, 12, 7]), atol=1e-4, rtol=1e-4)


def test_residuals_equal_a_projection_in_float64() -> None:
    rows = torch.randn(60, 32, generator=torch.Generator().manual_seed(0))
    basis = torch.tensor([7, 3, 50, 21])
    exact = rows.double()
    fitted = exact[basis].T @ torch.linalg.lstsq(exact[basis].T, exact.T).solution
    torch.testing.assert_close(residuals(rows, basis).double(), (exact.T - fitted).norm(dim=0), atol=1e-4, rtol=1e-4)


def test_equal_rows_and_what_is_not_a_number_do_not_stop_a_fit() -> None:
    rows = torch.ones(6, 4)
    assert residuals(rows, torch.tensor([0, 1, 2])).shape == (6,)
    rows[3] = torch.nan
    assert residuals(rows, torch.tensor([0, 3])).shape == (6,)


def test_the_row_farthest_from_the_mean() -> None:
    rows = torch.tensor([[0.0, 0], [1, 0], [0, 1], [9, 9], [1, 1]])
    assert int(farthest_from_mean(rows)) == 3
    assert int(farthest_from_mean(torch.ones(4, 2))) == 0
