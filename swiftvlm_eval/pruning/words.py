"""The words in which methods declare what they do and need."""

from typing import Literal

ScoreLayer = Literal["previous", "next"]
"""Whose projections score a stage: the layer that has just run, or the one about to run."""
PositionRule = Literal["keep", "compact"]
"""Rows keep their position ids, or the sequence is renumbered 0..n-1 after every edit."""
Need = Literal[
    "cls_attention",
    "patch_features",
    "patch_keys",
    "tower_states",
    "pixels",
    "image_resizing",
    "tower_rows",
    "decoder_input",
    "layer_keys",
    "layer_values",
    "module_io",
    "question_text",
]
"""What a method may ask for beyond the rows, attention and layout that every family shows."""
Scope = Literal["all", "visual"]
"""Keys under the softmax: every visible row, or the visual candidates only."""
Order = Literal["any", "among", "ascending"]
"""What a method says of the places of the rows it returns. `any`: nothing. `among`: they lie between the first and the
last place of the visual rows of the prompt, or just behind it, so that in one run of these no text row stands between
them. `ascending`: among, and each at or behind the one before it."""
