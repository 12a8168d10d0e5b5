"""Scoring of grounding answers: boxes, frames and overlap, without torch and without lmms-eval."""

from swiftvlm_eval.grounding.boxes import (
    Box,
    BoxScore,
    Frame,
    ParsedBox,
    box_from_xywh,
    from_frame,
    iou,
    parse_box,
    score_box,
    to_frame,
)

__all__ = [
    "Box",
    "BoxScore",
    "Frame",
    "ParsedBox",
    "box_from_xywh",
    "from_frame",
    "iou",
    "parse_box",
    "score_box",
    "to_frame",
]
