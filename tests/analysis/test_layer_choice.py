"""The choice of layers against brute force over all sets, and on profiles whose answer is plain."""

import itertools
import math
import random
from collections.abc import Iterator
from fractions import Fraction

import pytest

from swiftvlm_eval.analysis.layer_choice import best_choices

NAN = math.nan


def area(layers: tuple[int, ...], x: dict[int, float], last: int) -> Fraction:
    """Equation 7 as it stands: sum of x_{i_k} (i_{k+1} - i_k) with i_0 = 2 and i_{m+1} = L."""
    edges = [2, *layers, last]
    return sum((Fraction(x[low]) * (high - low) for low, high in itertools.pairwise(edges)), Fraction(0))


def rising_sets(x: dict[int, float], last: int, most: int, gap: int) -> Iterator[tuple[int, ...]]:
    """Every set of at most `most` layers from 3 on that equations 4 and 5 allow, layer L among them."""
    for size in range(most + 1):
        for layers in itertools.combinations(range(3, last + 1), size):
            values = [x[2], *(x[layer] for layer in layers)]
            finite = all(math.isfinite(value) for value in values)
            apart = size < 2 or layers[1] - layers[0] >= gap
            if finite and apart and all(max(values[:k]) < values[k] for k in range(1, len(values))):
                yield layers


def by_force(x: dict[int, float], last: int, most: int, gap: int) -> list[tuple[Fraction, tuple[int, ...]]]:
    """All sets below layer L, the best first."""
    sets = [layers for layers in rising_sets(x, last, most, gap) if last not in layers]
    found = sorted((-area(layers, x, last), len(layers), layers) for layers in sets)
    return [(-value, layers) for value, _, layers in found]


def profiles(number: int) -> Iterator[tuple[dict[int, float], int, int, int]]:
    """Random profiles: many ties, some NaN and infinite layers, some rising, falling or constant."""
    rng = random.Random(7)
    for _ in range(number):
        last, most, gap = rng.randint(3, 14), rng.randint(1, 6), rng.choice((1, 1, 2, 3))
        kind = rng.choice(("grid", "grid", "real", "rising", "falling", "constant"))
        levels = rng.randint(1, 6)
        values = [rng.randint(0, levels) / levels if kind == "grid" else rng.random() for _ in range(last - 1)]
        if kind in ("rising", "falling"):
            values.sort(reverse=kind == "falling")
        if kind == "constant":
            values = [values[0]] * len(values)
        x = dict(zip(range(2, last + 1), values, strict=True))
        for layer in range(3, last + 1):
            if rng.random() < 0.1:
                x[layer] = rng.choice((NAN, math.inf, -math.inf))
        yield x, last, most, gap


def test_the_best_sets_are_those_of_brute_force() -> None:
    chosen = 0
    for x, last, most, gap in profiles(3000):
        expected = by_force(x, last, most, gap)
        found = best_choices(x, last, most, count=4, gap=gap)
        assert [choice.layers for choice in found] == [layers for _, layers in expected[:4]], (x, last, most, gap)
        assert [choice.objective for choice in found] == [float(value) for value, _ in expected[:4]]
        assert best_choices(x, last, most, gap=gap) == found[:1]
        chosen += bool(found[0].layers)
    assert 1000 < chosen < 2500


def test_neither_layer_l_nor_the_reading_of_equation_5_matters() -> None:
    """With records alone (x above every earlier layer, chosen or not) and with layer L the best area is the same."""
    for x, last, most, _ in profiles(500):
        records = [
            layers
            for layers in rising_sets(x, last, most, 1)
            if all(x[layer] > max(x[j] for j in range(2, layer) if math.isfinite(x[j])) for layer in layers)
        ]
        found = best_choices(x, last, most, gap=1)[0].objective
        assert found == float(max(area(layers, x, last) for layers in records))
        assert found == float(max(area(layers, x, last) for layers in rising_sets(x, last, most, 1)))


def test_equal_areas_go_to_fewer_then_earlier_layers() -> None:
    # nothing rises: the empty set
    flat = dict.fromkeys(range(2, 7), 0.5)
    assert best_choices(flat, 6, 3)[0].layers == ()
    # after layer 3 with 0.75: 0.5 + 3 * 0.75 = 2.75; after 4 with 0.875: 1 + 2 * 0.875 = 2.75
    tied = {2: 0.5, 3: 0.75, 4: 0.875, 5: 0.5, 6: 0.5}
    assert [choice.layers for choice in best_choices(tied, 6, 1, count=2)] == [(3,), (4,)]
    assert [choice.objective for choice in best_choices(tied, 6, 1, count=2)] == [2.75, 2.75]
    # both layers together are better, if the stages may meet at one boundary
    assert best_choices(tied, 6, 2, gap=1)[0].layers == (3, 4)
    assert best_choices(tied, 6, 2)[0].layers == (3,)


@pytest.mark.parametrize(
    ("values", "stages", "layers"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.5], 3, ()),  # falling
        ([0.5, 0.5, 0.5, 0.5, 0.5], 3, ()),  # constant
        ([0.1, 0.9, 0.2, 0.3, 0.9], 3, (3,)),  # one step up: fewer stages than asked for
        ([0.1, NAN, 0.5, NAN, 0.9], 3, (4,)),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 9, (3, 5)),  # layers 2 to 6 of 6; 3 and 4 would meet
        ([0.1, math.inf, 0.2, 0.2, 0.2], 2, (4,)),
    ],
)
def test_profiles_with_a_plain_answer(values: list[float], stages: int, layers: tuple[int, ...]) -> None:
    assert best_choices(dict(enumerate(values, 2)), 6, stages)[0].layers == layers


def test_a_shape_as_the_paper_describes_gives_its_layers() -> None:
    """Figure 4 prints no numbers. A synthetic curve after its text: fluctuating early, a peak around layer 15."""
    x = {layer: 0.88 for layer in range(2, 33)}
    x |= {2: 0.70, 3: 0.86, 4: 0.84, 5: 0.80, 6: 0.83, 7: 0.85, 8: 0.84, 9: 0.87, 10: 0.88}
    x |= {11: 0.95, 12: 0.94, 13: 0.955, 14: 0.96, 15: 1.00, 16: 0.99, 17: 0.98, 18: 0.97, 19: 0.96, 20: 0.95}
    best = best_choices(x, 32, 3)[0]
    assert (best.layers, best.boundaries) == ((3, 11, 15), (3, 10, 14))


def test_boundaries_ascend_whatever_is_chosen() -> None:
    for x, last, most, _ in profiles(500):
        boundaries = best_choices(x, last, most)[0].boundaries
        assert all(low < high for low, high in itertools.pairwise([0, *boundaries, last]))


@pytest.mark.parametrize(
    ("x", "num_layers", "stages", "said"),
    [
        ({2: 0.5, 4: 0.6}, 5, 1, "no x for layers 3"),
        ({2: NAN, 3: 0.6}, 4, 1, "x of layer 2 is nan"),
        ({2: 0.5}, 2, 1, "num_layers=2"),
        ({2: 0.5, 3: 0.6}, 4, 0, "stages=0"),
    ],
)
def test_what_is_no_profile_is_refused(x: dict[int, float], num_layers: int, stages: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        best_choices(x, num_layers, stages)
