"""Every method against a slow, plain implementation written from its description alone.

The oracle runs the whole sequence through each layer without a cache; the engine prunes in prefill and decodes with
the stock `generate()`. Logits of the prompt and of every generated token, kept tokens, rows and positions must agree.
Each oracle declares its method and cases itself (`reference.declared`).
"""

import pytest
from against_oracle import check
from reference.declared import oracle_of, oracles
from tiny_models import make_image, make_inputs, tiny_llava, tiny_llava_next

from swiftvlm_eval import method_names

CASES = [(name, case) for name, oracle in oracles().items() for case in oracle.cases]


@pytest.mark.parametrize("name", method_names())
def test_every_method_has_an_oracle(name: str) -> None:
    oracle = oracle_of(name)
    assert oracle.cases or oracle.no_cases, f"{name}: its oracle declares neither cases nor why there are none"


def test_a_forgotten_oracle_is_told_what_is_missing() -> None:
    with pytest.raises(LookupError, match=r"method mine has no oracle: write .* in tests/reference/ and declare it"):
        oracle_of("mine")


def test_every_oracle_has_a_method() -> None:
    assert set(oracles()) == set(method_names())


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize(("attn", "kv_heads"), [("sdpa", 4), ("eager", 2)])
def test_llava(name: str, case: str, attn: str, kv_heads: int) -> None:
    model, processor = tiny_llava(grid=12, attn=attn, kv_heads=kv_heads)
    check(model, make_inputs(processor, make_image(150, 110, seed=3)), name, oracle_of(name).cases[case])


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, case in CASES if oracle_of(name).cases[case].tiles])
def test_llava_next(name: str, case: str) -> None:
    model, processor = tiny_llava_next(grid=6, language="mistral", kv_heads=2)
    check(model, make_inputs(processor, make_image(150, 110, seed=4)), name, oracle_of(name).cases[case])
