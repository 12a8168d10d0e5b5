"""Training parts against independent oracles: the stock decoder, hand-computed targets, and a run that is resumed."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from demo_model import loop
from demo_model.batches import FULL_MIX, Packer, draw_batch, pixel_batch
from demo_model.loop import build_learner, learning_rate, train
from demo_model.model import GRID, WIDTH, build_model, build_processor
from demo_model.packed import packed_decoder
from demo_model.patches import COLOUR_IDS, LABEL_IDS, SHAPE_IDS, PatchCode, patch_targets
from demo_model.stages import STAGES, Stage
from demo_model.tokenizer import AFTER_IMAGE, BEFORE_IMAGE, build_tokenizer

from swiftvlm_eval.demo.questions import GROUNDING, SHORT_ANSWER, Question
from swiftvlm_eval.demo.scenes import Scene, SceneObject

TOKENIZER = build_tokenizer()
SCENE = Scene(168, 168, (205, 205, 205), (SceneObject("square", "red", (28, 42, 84, 98), "7"),))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(TOKENIZER, seed=3).eval()


def test_tokenizer_spells_prompts_in_few_tokens_and_back():
    text = f"{BEFORE_IMAGE}<image>{AFTER_IMAGE.format(GROUNDING.format('left red circle'))} [0.12, 0.34, 0.56, 1.00]"
    ids = TOKENIZER(text).input_ids
    assert ids.count(TOKENIZER.bos_token_id) == 1 and len(ids) < 24
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == "<s>" + text
    for word in ("0.00", "0.37", "1.00"):
        assert len(TOKENIZER(word, add_special_tokens=False).input_ids) == 1


def test_unknown_text_survives_the_tokenizer():
    text = "Ein Bär, 1.5 zebras & 漢字\t?"
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False).input_ids) == text


def test_tokenising_in_pieces_equals_tokenising_the_whole():
    prompt = AFTER_IMAGE.format("What color is the circle?" + SHORT_ANSWER)
    whole = TOKENIZER(f"{BEFORE_IMAGE}<image>{prompt} red").input_ids
    pieces = [TOKENIZER(part, add_special_tokens=False).input_ids for part in ("<image>", prompt, " red")]
    assert whole == TOKENIZER(BEFORE_IMAGE).input_ids + sum(pieces, [])


def test_packed_decoder_equals_the_stock_decoder_question_by_question(model):
    generator = torch.Generator().manual_seed(0)
    prefix = torch.randn(2, 20, WIDTH, generator=generator)
    questions = torch.randn(2, 3, 7, WIDTH, generator=generator)
    decoder = model.model.language_model
    with torch.no_grad():
        packed = packed_decoder(decoder, prefix, questions)
        for b in range(2):
            for n in range(3):
                alone = torch.cat([prefix[b], questions[b, n]])[None]
                expected = decoder(inputs_embeds=alone, use_cache=False).last_hidden_state[0, 20:]
                assert torch.allclose(packed[b, n], expected, atol=1e-4)


def test_packer_labels_exactly_the_answer():
    question = Question("gqa", "colour", "What color is the circle?", "red")
    packed = Packer(TOKENIZER).pack([[question, question], [question]])
    ids, labels = packed.ids[0, 0], packed.labels[0, 0]
    answered = labels >= 0
    assert TOKENIZER.convert_ids_to_tokens(labels[answered].tolist()) == ["Ġred", "</s>"]
    assert TOKENIZER.convert_ids_to_tokens(ids[answered].tolist()) == [" ASSISTANT:", "Ġred"]
    assert (packed.labels[1, 1] < 0).all() and (packed.kind[~(packed.labels >= 0)] == -1).all()


def test_patch_targets_by_hand():
    # 168 pixels, 12 x 12 patches of 14: the square covers columns 2 to 5 and rows 3 to 6.
    targets = patch_targets(SCENE)
    colour = targets.colour.reshape(GRID, GRID)
    expected = np.zeros((GRID, GRID), dtype=int)
    expected[3:7, 2:6] = COLOUR_IDS["red"]
    assert np.array_equal(colour, expected)
    assert np.array_equal(targets.shape.reshape(GRID, GRID) == SHAPE_IDS["square"], expected > 0)
    assert targets.box.reshape(GRID, GRID, 4)[4, 3] == pytest.approx([28 / 168, 42 / 168, 84 / 168, 98 / 168])
    assert targets.box.reshape(GRID, GRID, 4)[0, 0].tolist() == [0, 0, 0, 0]
    # The plate is in the middle, (56, 70), on the corner of four patches.
    rows, columns = np.nonzero(targets.label.reshape(GRID, GRID))
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(4, 3), (4, 4), (5, 3), (5, 4)}
    assert set(targets.label.tolist()) == {0, LABEL_IDS["7"]}
    assert targets.presence.sum() == 4  # red, square, red square, "7"


def test_the_code_can_be_read_back():
    targets = patch_targets(SCENE)
    batch = {name: torch.from_numpy(getattr(targets, name))[None] for name in ("colour", "shape", "label", "box")}
    code = PatchCode()
    vectors = code.encode(batch)[0]
    assert torch.equal((vectors @ code.colour.T > 3).any(dim=1), batch["colour"][0] > 0)
    assert ((vectors @ code.label.T).argmax(dim=1) + 1)[batch["label"][0] > 0].unique().tolist() == [LABEL_IDS["7"]]


def test_training_pixels_equal_the_processor_up_to_rounding():
    scenes, _ = draw_batch("val", 0, 0, 6, FULL_MIX)
    from swiftvlm_eval.demo.drawing import draw_scene

    processor = build_processor(TOKENIZER)
    ours = pixel_batch(scenes)
    theirs = processor.image_processor([draw_scene(scene) for scene in scenes], return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() < 0.02


def test_learning_rate_rises_then_falls():
    stage = Stage("joint", steps=100, images=1, learning_rate=1.0, seed=0, warmup=10)
    rates = [learning_rate(stage, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, abs=0.01) and max(rates) == rates[9]
    assert rates[-1] < 0.06 and rates[10:] == sorted(rates[10:], reverse=True)


def test_an_interrupted_run_continues_to_the_same_weights(tmp_path):
    # one image is enough: the state is of the whole run; every other step of `boxes` is of another kind
    short = tuple(replace(stage, steps=2 if stage.alternate else 1, images=1) for stage in STAGES)
    straight = build_learner(TOKENIZER, 0, torch.device("cpu"))
    train(straight, short, tmp_path / "straight", lambda *_: None)
    first = build_learner(TOKENIZER, 0, torch.device("cpu"))
    train(first, short[:2], tmp_path / "resumed", lambda *_: None)
    second = build_learner(TOKENIZER, 1, torch.device("cpu"))
    second.code = first.code
    train(second, short, tmp_path / "resumed", lambda *_: None)
    for name, value in straight.model.state_dict().items():
        assert torch.allclose(value, second.model.state_dict()[name], atol=1e-5), name
    with (tmp_path / "resumed" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [stage.name for stage in STAGES] == list(dict.fromkeys(row["stage"] for row in rows))
    assert all(np.isfinite(float(row["loss"])) for row in rows)


def test_a_killed_run_continues_within_a_stage_and_its_curves_have_no_step_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    stages = (replace(STAGES[0], steps=4, images=1),)
    straight = build_learner(TOKENIZER, 0, torch.device("cpu"))
    train(straight, stages, tmp_path / "straight", lambda *_: None)

    def kill(_stage, step, _means):
        if step == 3:
            raise KeyboardInterrupt

    killed = build_learner(TOKENIZER, 0, torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        train(killed, stages, tmp_path / "killed", kill)
    resumed = build_learner(TOKENIZER, 0, torch.device("cpu"))
    train(resumed, stages, tmp_path / "killed", lambda *_: None)
    for name, value in straight.model.state_dict().items():
        assert torch.allclose(value, resumed.model.state_dict()[name], atol=1e-5), name
    steps = []
    for run in ("straight", "killed"):
        with (tmp_path / run / "curves.csv").open() as file:
            steps.append([row["step"] for row in csv.DictReader(file) if row["name"] == "tower/cls"])
    assert steps == [["1", "2", "3", "4"]] * 2
