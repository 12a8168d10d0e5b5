"""One method on one prompt, compared with its slow implementation in everything that both can see."""

from typing import Any

import torch
from reference.declared import Case

from swiftvlm_eval import make_method, prune
from swiftvlm_eval.testing.greedy import generate


def check(model: Any, inputs: Any, name: str, case: Case) -> None:
    """Runs the engine and forces its answer on the oracle; rows, kept tokens and all logits must agree."""
    with prune(model, make_method(name, case.options), budget=case.budget) as session:
        answer = generate(model, inputs)
        trace = session.traces[0]
    generated = answer.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    truth = case.run(model, inputs, generated[:-1])
    assert trace.rows_per_layer == truth.visual_rows()
    if truth.kept_indices and not truth.sources:  # VisionZip's oracle counts patches of tiles
        assert [stage.kept_indices for stage in trace.stages] == truth.kept_indices
    logits = torch.stack([step[0] for step in answer.logits])
    torch.testing.assert_close(logits, truth.logits, atol=2e-4, rtol=2e-4)
    assert truth.logits.std() > 0.5, "logits that hardly vary would hide an error"
