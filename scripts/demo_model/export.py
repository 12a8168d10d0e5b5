"""Writes the trained model as a checkpoint of the library: safetensors in float16, config, tokenizer, processor."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from demo_model.model import build_processor


def export_checkpoint(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves model and processor under `folder`; `AutoModelForImageTextToText` and `AutoProcessor` load them.

    Weights are stored as float16 to halve the file, but the config names float32: CPUs compute float16 slowly, and
    the loader converts.
    """
    stored = copy.deepcopy(model).to(device="cpu", dtype=torch.float16)
    stored.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # the library writes it readable by its owner only
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
