"""What the pages say of methods is what their classes say."""

import make_leaderboards

from swiftvlm_eval import make_method, method_names
from swiftvlm_eval.leaderboard.methods import method_facts
from swiftvlm_eval.pruning.describe import not_servable


def test_the_facts_are_those_of_the_registry() -> None:
    facts = method_facts()
    assert facts.keys() == set(method_names())
    for name, fact in facts.items():
        method = make_method(name)
        assert (fact.title, fact.source, fact.summary, fact.code) == (
            method.title,
            method.source,
            method.summary,
            method.code,
        )
        assert fact.servable is not bool(not_servable(method))
    assert make_leaderboards.FACTS.read_text(encoding="utf-8") == make_leaderboards.method_facts()


def test_papers_are_known_by_their_number() -> None:
    assert method_facts()["swiftvlm"].arxiv == "2602.03134"
    assert method_facts()["random"].arxiv is None
