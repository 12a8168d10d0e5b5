import pytest

from swiftvlm_eval import method_names
from swiftvlm_eval.leaderboard.render.looks import Looks, looks, row_looks


def test_every_registered_method_has_a_line() -> None:
    assert looks().methods.keys() == set(method_names())


def test_looks_that_were_given_once_stay() -> None:
    """Written down a second time, since readers know them by heart: changing the table must hurt."""
    known = {
        "vanilla": ("ink", "star"),
        "swiftvlm": ("vermillion", "circle"),
        "feather": ("green", "square"),
        "fastv": ("blue", "up"),
        "visionzip": ("purple", "diamond"),
        "pdrop": ("orange", "down"),
        "sparsevlm": ("sky", "plus"),
        "my_method": ("vermillion", "hexagon"),
    }
    found = {name: (looks().of(name).colour, looks().of(name).marker) for name in known}
    assert {name: look for name, look in found.items() if name != "my_method"} == {
        name: look for name, look in known.items() if name != "my_method"
    }


def test_other_names_get_looks_that_no_registered_one_has_and_keep_them() -> None:
    taken = set(looks().methods.values())
    names = [f"method{number}" for number in range(300)]
    given = {name: (looks().of(name).colour, looks().of(name).marker) for name in names}
    assert not taken & set(given.values())
    assert len(set(given.values())) > 90  # of 112 free pairs
    # one more line in the table moves those alone that had its pair
    pair = given["method7"]
    more = Looks(colours=looks().colours, markers=looks().markers, methods={**looks().methods, "new": pair})
    moved = [name for name in names if (more.of(name).colour, more.of(name).marker) != given[name]]
    assert moved == [name for name in names if given[name] == pair]


@pytest.mark.parametrize(
    ("methods", "reason"),
    [({"a": ("pink", "star")}, "methods.a"), ({"a": ("ink", "star"), "b": ("ink", "star")}, "same colour and marker")],
)
def test_a_table_that_is_wrong_is_refused(methods: dict[str, tuple[str, str]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Looks(colours=looks().colours, markers=looks().markers, methods=methods)


def test_variants_of_a_method_share_its_look_and_one_of_them_is_full() -> None:
    from swiftvlm_eval.leaderboard.board import Row

    def row(budget: float, label: str, layers: int) -> Row:
        return Row(f"{budget} {label}", label, "fastv", budget, False, options={"layers": layers})

    rows = [row(1 / 3, "fastv (layers=2)", 2), row(1 / 3, "fastv (layers=1)", 1), row(2 / 9, "fastv", 1)]
    found = row_looks(rows)
    assert {(look.colour, look.marker) for look in found.values()} == {looks().methods["fastv"]}
    assert [found[each.key].hollow for each in rows] == [True, False, False]
