"""Latency records made by hand: what stands in them is known to the digit."""

from typing import Any

from swiftvlm_eval.results.latency_record import LatencyRecord

ROUNDS = 4
PARTS = {"tower": 0.1, "projector": 0.05, "selection": 0.2, "decoder": 0.6, "other": 0.05}


def contender(label: str, prefill: float = 4.0, rows: float = 576.0, role: str = "method", **more: Any) -> dict:
    """One that takes `prefill` seconds, slower by a tenth in every round; a step is a hundredth of it."""
    times = [prefill * (1 + 0.1 * number) for number in range(ROUNDS)]
    return {
        "label": label,
        "role": role,
        "method": label.split(" ")[0].split("[")[0] if role == "method" else None,
        "options": {},
        "budget": rows / 576 if role == "method" else None,
        "prefill_s": times,
        "decode_s": [time / 100 for time in times],
        "rows_per_layer": [rows] * 4,
        "prefill_flops": 1e9 * rows,
        "parts_s": {part: [share * prefill] * 2 for part, share in PARTS.items()},
        "steps_s": [prefill / 100] * 6,
        "cache_bytes": int(1024 * rows),
        "peak_bytes": int(4096 * rows),
        **more,
    }


CONTROLS = [
    contender("stock", role="stock"),
    contender("stock again", role="again"),
    contender("engine, nothing pruned", role="engine"),
]


def content(*methods: dict, again: float = 1.0, **more: Any) -> dict:
    """A record's content; `again` is the ratio of the stock model to itself."""
    twin = contender("stock again", prefill=4.0 / again, role="again")
    ratio = [again, again, again]
    found: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "model": {
            **{"name": "", "family": "llava", "hidden_size": 64, "intermediate_size": 128, "num_layers": 4},
            **{"num_heads": 4, "num_kv_heads": 4, "vocabulary": 1024, "weight_bytes": 2**20},
            **{"tower_layers": 3, "tower_width": 64, "tower_side": 24},
        },
        "workload": {
            **{"visual_tokens": 576, "encoder_inputs": 1, "image_size": None, "text_tokens": 64},
            **{"output_tokens": 3, "batch_size": 1},
        },
        "settings": {
            **{"dtype": "float32", "attn": "sdpa", "clock": "cpu", "warmup": 2, "rounds": ROUNDS, "part_rounds": 2},
        },
        "machine": {"device": "cpu", "name": "A processor", "threads": 1, "cpu_capability": "AVX2"},
        "software": {"versions": {"torch": "1.2.3", "transformers": "4.5.6"}, "commit": "0123456789abcdef"},
        "peak_method": "cpu_allocator_events",
        "again": {"prefill": ratio, "decode": ratio, "steady": again == 1.0},
        "contenders": [CONTROLS[0], twin, CONTROLS[2], *methods],
        "refused": {},
    }
    return found | more


def record(*methods: dict, **more: Any) -> LatencyRecord:
    """The record of that content."""
    return LatencyRecord.model_validate(content(*methods, **more))
