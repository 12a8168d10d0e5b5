"""The page beside exported rows: what they are, and how an engine is handed them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Exported:
    """One written file.

    Attributes:
        file: its name.
        image: the image's name without folders.
        before: visual tokens of the unpruned prompt.
        after: rows in the file.
        width: hidden size of the decoder.
    """

    file: str
    image: str
    before: int
    after: int
    width: int


def page(about: Mapping[str, str], exported: Sequence[Exported]) -> str:
    """`README.md` of an export.

    Args:
        about: metadata that all files share, as `serving.export` writes them.
        exported: the files.
    """
    facts = ("model", "revision", "content", "dtype", "method", "options", "budget", "seed", "image_mode")
    lines = ["# Visual rows for a serving engine", "", INTRODUCTION.strip(), "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {_cell(about[name])} |" for name in facts if about[name]]
    asked = (
        f"Made for one question: {_cell(about['question'])}. {QUESTION.strip()}" if about["question"] else ANY.strip()
    )
    lines += ["", asked, "", "| file | visual tokens before | rows | width |", "|---|---:|---:|---:|"]
    lines += [f"| {_cell(each.file)} | {each.before} | {each.after} | {each.width} |" for each in exported]
    if about["model"] == "demo" or about["model"].startswith("local:"):
        lines += ["", "This model is no hub id: put its folder in the place of its name below."]
    if about["family"] != "llava":
        lines += ["", OTHER_FAMILY.strip()]
    return "\n".join(lines) + "\n" + _snippets(about, exported[0].file)


def _snippets(about: Mapping[str, str], file: str) -> str:
    """The lines of Python, with their values written as literals."""
    values = {"FILE": file, "MODEL": about["model"], "PROMPT": about["prompt"], "REVISION": about["revision"] or None}
    return re.sub("@([A-Z]+)@", lambda found: repr(values[found[1]]), SNIPPETS)


def _plain(text: str) -> str:
    """In one line, without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _cell(text: str) -> str:
    """In a cell of a table, literally."""
    return "`" + _plain(text).replace("`", "'").replace("|", "\\|") + "`"


INTRODUCTION = """
Each file has the tensor `image_embeds`, [rows, width]: what the decoder receives in place of the image's visual
tokens, after vision tower, projector and selection. Its metadata says how it was made.

Positions are **compact**: the whole sequence is numbered 0, 1, 2, ... over the text before the image, these rows, and
the text after it, and the next token follows. That is what an engine does by itself if the prompt has exactly as many
image tokens as there are rows. A prompt with the model's full number of image tokens is wrong.
"""
QUESTION = """
The method may have read it, so that these rows are for no other one.
"""
ANY = """
The rows are the same for every question: each image's were computed for two questions, and compared.
"""
OTHER_FAMILY = """
This model is no LLaVA-1.5: with LLaVA-NeXT such rows have been reported to fail in vLLM
(https://github.com/vllm-project/vllm/issues/29215); give the whole prompt as embeddings instead.
"""
SNIPPETS = """
## transformers (this one is tested)

```python
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoTokenizer

name, revision = @MODEL@, @REVISION@
with safe_open(@FILE@, "pt") as file:
    rows, about = file.get_tensor("image_embeds"), file.metadata()
model = AutoModelForImageTextToText.from_pretrained(name, revision=revision, dtype=rows.dtype).eval()
tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
prompt = @PROMPT@

before, after = (tokenizer(text, add_special_tokens=False).input_ids for text in prompt.split("<image>"))
start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
embed = model.get_input_embeddings()
text = [embed(torch.tensor(ids, device=model.device)) for ids in (start + before, after)]
prompt_embeds = torch.cat([text[0], rows.to(model.device), text[1]])
with torch.inference_mode():
    ids = model.generate(inputs_embeds=prompt_embeds[None], max_new_tokens=64, do_sample=False)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
```

## vLLM, rows of the image

UNTESTED: vLLM is not installed where this was written; names are those of vLLM 0.33. `enable_mm_embeds` lets the
number of image tokens follow the number of rows. An engine trusts such tensors, so take them from nobody else.

```python
from safetensors import safe_open
from vllm import LLM, SamplingParams

with safe_open(@FILE@, "pt") as file:
    rows = file.get_tensor("image_embeds")
engine = LLM(model=@MODEL@, revision=@REVISION@, enable_mm_embeds=True)
request = {"prompt": @PROMPT@, "multi_modal_data": {"image": rows[None]}}
print(engine.generate(request, SamplingParams(temperature=0, max_tokens=64))[0].outputs[0].text)
```

## vLLM, the whole prompt as embeddings

UNTESTED, as above. `prompt_embeds` is the tensor [length, width] of the first block.

```python
engine = LLM(model=@MODEL@, revision=@REVISION@, enable_prompt_embeds=True)
print(engine.generate({"prompt_embeds": prompt_embeds.cpu()}, SamplingParams(temperature=0, max_tokens=64)))
```

SGLang takes rows of an image in the input format `precomputed_embedding` (untested, too). Whichever you take: compare
a few greedy answers with those of the first block before you trust it.
"""
