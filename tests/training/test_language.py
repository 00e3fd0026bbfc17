"""Captions, questions, the parser, the scorer and the tokenizer."""

import numpy as np
import pytest

from hippo_jax.training.domain import COLOURS, HELD_OUT, Scene, Thing, sample_scene
from hippo_jax.training.language import (
    PROMPTS,
    all_questions,
    attributes,
    caption,
    corpus,
    parse,
    questions,
)
from hippo_jax.training.scoring import score_captions
from hippo_jax.training.tokenizer import SPECIAL_TOKENS, VOCABULARY, save_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


@pytest.mark.parametrize("style", range(len(PROMPTS)))
def test_parser_inverts_every_phrasing(style):
    for index in range(200):
        scene = sample_scene(0, index)
        assert parse(caption(scene, style).answer) == attributes(scene)


def test_wording_of_the_default_style():
    scene = Scene(1, 0, (Thing(0, 0, 0, 1, 2, 3, 0), Thing(2, 2, 5, 0, 0, 2, 0)), (0,))
    assert caption(scene).answer == (
        "The background is striped and dark. On the left, a red ring in the top row moves right "
        "and turns white halfway. In the middle, nothing. On the right, a blue disc in the bottom "
        "row stays still and vanishes halfway."
    )


def test_parser_takes_any_text():
    assert parse("") == {}
    assert parse("Hello there. What a day") == {}
    assert parse("On the left, a red") == {
        "left": {"object": "something", "event": "none", "colour": "red"}
    }


def test_perfect_captions_score_one():
    scenes = [sample_scene(0, i, HELD_OUT) for i in range(30)]
    score = score_captions((s, caption(s, i % 3).answer) for i, s in enumerate(scenes))
    assert score.accuracy == 1 and score.exact == 1 and not score.confusion


def test_one_wrong_word_is_one_wrong_attribute():
    scene = Scene(1, 0, (Thing(0, 0, 0, 1, 2, 0, 0), Thing(2, 2, 5, 0, 0, 2, 0)), (0,))
    score = score_captions([(scene, caption(scene).answer.replace("red ring", "pink ring"))])
    assert sum(score.total.values()) == 2 + 6 + 1 + 6
    assert sum(score.right.values()) == 14
    assert score.worst() == [(("colour", "red", "pink"), 1)]


def test_omitted_and_invented_objects_spoil_their_whole_slot():
    scene = Scene(1, 0, (Thing(0, 0, 0, 1, 2, 0, 0), Thing(2, 2, 5, 0, 0, 2, 0)), (0,))
    text = caption(scene).answer
    omitted = text.replace("a red ring in the top row moves right", "nothing")
    assert sum(score_captions([(scene, omitted)]).right.values()) == 15 - 6
    invented = text.replace("nothing", "a red ring in the top row moves right")
    score = score_captions([(scene, invented)])
    assert sum(score.right.values()) == 14 and score.accuracy < 14 / 15


def test_questions_are_answered_from_the_scene():
    scene = sample_scene(0, 7)
    asked = questions(scene, np.random.default_rng(0), 6)
    assert len({d.prompt for d in asked}) == 6
    for dialogue in all_questions(scene):
        if dialogue.prompt.startswith("What colour") and "nothing" not in dialogue.answer:
            assert dialogue.answer[len("It is ") : -1] in COLOURS


def test_pieces_are_whole_tokens(tokenizer):
    for index in range(30):
        for style in range(3):
            dialogue = caption(sample_scene(0, index), style)
            joined = [i for text, _ in dialogue.pieces for i in tokenizer.encode(text).ids]
            assert joined == tokenizer.encode(dialogue.answer).ids


def test_captions_have_the_planned_length(tokenizer):
    lengths = [
        len(tokenizer.encode(caption(sample_scene(0, i), s).answer).ids)
        for i in range(50)
        for s in range(3)
    ]
    assert min(lengths) >= 35 and max(lengths) <= 96 and 45 <= np.mean(lengths) <= 80


def test_tokenizer_is_deterministic_and_covers_bytes(tokenizer):
    assert train_tokenizer().to_str() == tokenizer.to_str()
    assert tokenizer.get_vocab_size() <= VOCABULARY
    text = "Ünïcode 漢字 \t 12 🦛 <|im_end|>"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_every_domain_word_is_one_token(tokenizer):
    words = {word for text in corpus(20) for word in text.replace("\n", " ").split(" ")}
    words = {w.strip(".,:;?") for w in words} - {""}
    lower = [w for w in words if w[0].islower() and w not in ("user", "assistant", "system")]
    assert len(lower) > 50
    assert all(len(tokenizer.encode(f" {word}").ids) == 1 for word in lower)


def test_transformers_reads_it(tokenizer, tmp_path):
    import transformers

    save_tokenizer(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    message = {
        "role": "user",
        "content": [{"type": "video"}, {"type": "text", "text": PROMPTS[0]}],
    }
    text = loaded.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Describe the video."
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert loaded.encode(text) == tokenizer.encode(text).ids
    assert loaded.eos_token == "<|im_end|>"
    for token in SPECIAL_TOKENS:
        assert loaded.convert_tokens_to_ids(token) == tokenizer.token_to_id(token)
