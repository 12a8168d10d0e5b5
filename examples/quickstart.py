# %% [markdown]
# # Visual-token pruning in five minutes
#
# A LLaVA turns an image into *visual tokens* (576 of them in LLaVA-1.5) and reads them in every layer. A pruning
# method drops most of them on the way. Here a tiny LLaVA that comes with the package answers a question about a drawn
# scene, unpruned and pruned, you look at what was kept, and two methods are compared. Nothing is downloaded, a CPU is
# enough.
#
# Open this file as a notebook (VS Code, PyCharm, `jupytext --to ipynb quickstart.py`), or run
# `python examples/quickstart.py FOLDER`, which writes its pictures into the folder.

# %%
import sys
from pathlib import Path

import torch

from swiftvlm_eval import make_method, picture, prune
from swiftvlm_eval.analysis.asking import ask_document
from swiftvlm_eval.grounding import iou, parse_box
from swiftvlm_eval.grounding.boxes import locate
from swiftvlm_eval.models.checkpoint import load_checkpoint
from swiftvlm_eval.models.prompts import vicuna_v1
from swiftvlm_eval.sweep.documents import Documents

script = bool(globals().get("__file__")) and len(sys.argv) > 1
out = Path(sys.argv[1]) if script else Path("quickstart")
out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1. A model and a question
# `demo` is the embedded model; a hub id such as `llava-hf/llava-1.5-7b-hf` works the same way. The question comes from
# the embedded grounding benchmark: where in the picture is the thing that a phrase names?

# %%
checkpoint = load_checkpoint("demo", device="cpu")
task = Documents(["demo_refcoco"]).tasks["demo_refcoco"]
asked = ask_document("demo_refcoco", task, 0)
(image,) = asked.images
print(asked.question)


def answer(question: str, picture_of: object) -> str:
    """The model's answer; inside a `prune` block the pruned model's."""
    inputs = checkpoint.encode([vicuna_v1(question)], [[picture_of]])
    with torch.inference_mode():
        ids = checkpoint.model.generate(**inputs, max_new_tokens=32, do_sample=False)
    return checkpoint.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


print("unpruned:", answer(asked.question, image))

# %% [markdown]
# ## 2. Prune
# The *budget* is the mean number of visual tokens per layer, here a third of them. Inside the block the model is
# pruned, behind it it is itself again.

# %%
with prune(checkpoint.model, make_method("swiftvlm"), budget="1/3") as session:
    print("swiftvlm:", answer(asked.question, image))

trace = session.traces[0]
print("visual tokens in each layer:", trace.rows_per_layer)
print(f"mean: {trace.mean_visual_tokens:.1f} of {trace.rows_per_layer[0]}")

# %% [markdown]
# ## 3. Look at what was kept
# Clear patches are kept, dim ones dropped, framed ones came back after bypassing layers.

# %%
kept = picture(session, image)
kept.save(out / "kept.png")
kept  # noqa: B018 (a notebook shows it)

# %% [markdown]
# ## 4. Compare two methods
# Thirty documents, the same for both. A box counts if it overlaps the true one by half (IoU 0.5). Thirty documents
# tell a large difference from none and nothing finer; `swiftvlm-eval sweep` runs whole benchmarks, and its leaderboard
# says with intervals what the documents can tell apart.

# %%
documents = [ask_document("demo_refcoco", task, number) for number in range(30)]


def hits(method: str) -> list[bool]:
    """Document by document: does the pruned model's box overlap the true one by half?"""
    found = []
    with prune(checkpoint.model, make_method(method), budget="1/3"):
        for document in documents:
            (own,) = document.images
            box = parse_box(answer(document.question, own))
            placed = box and locate(box, own.width, own.height, "square")
            found.append(placed is not None and iou(document.truth, placed) >= 0.5)
    return found


right = {method: hits(method) for method in ("fastv", "swiftvlm")}
for method, one in right.items():
    print(f"{method}: {sum(one)} of {len(one)} boxes right")
pairs = list(zip(right["fastv"], right["swiftvlm"], strict=True))
print("only swiftvlm right:", pairs.count((False, True)), "- only fastv right:", pairs.count((True, False)))

# %% [markdown]
# ## Where to go from here
# `swiftvlm-eval demo` compares four methods with a leaderboard, `swiftvlm-eval methods` lists all of them, and
# `examples/own_method` has two methods of one's own.
