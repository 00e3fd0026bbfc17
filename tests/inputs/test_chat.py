"""Prompts: ids as Hugging Face's processor makes them, and what is refused."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from inputs import golden_cases as cases

from hippo_jax.errors import HippoError
from hippo_jax.inputs.chat import encode_row, load_tokenizer
from hippo_jax.inputs.media import encode_media
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.video import Video

HERE = Path(__file__).parent
VIDEO_SHAPE, LOW, HIGH = cases.VIDEOS["odd"]
IMAGE_SHAPE, IMAGE_LOW, IMAGE_HIGH = cases.IMAGE
PROCESSOR = ProcessorConfig(
    min_pixels=LOW, max_pixels=HIGH, image_min_pixels=IMAGE_LOW, image_max_pixels=IMAGE_HIGH
)
SOURCES = {
    "video": Video(cases.frames(*VIDEO_SHAPE), 4.0),
    "image": cases.frames(*IMAGE_SHAPE)[0],
}


@dataclasses.dataclass(frozen=True)
class Special:
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(HERE / "tokenizer")


@pytest.fixture(scope="module")
def special(tokenizer):
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    return Special(*tokenizer.convert_tokens_to_ids(list(names)))


@pytest.fixture
def encode(tokenizer, special):
    def call(media, prompt, **options):
        return encode_row(tokenizer, special, PROCESSOR, media, prompt, **options)

    return call


@pytest.mark.parametrize("number", range(len(cases.CHATS)))
def test_ids_are_those_of_the_reference(encode, number):
    names, messages = cases.CHATS[number]
    goldens = np.load(HERE / "goldens" / "chats.npz")
    row = encode([SOURCES[name] for name in names], messages)
    assert row.ids.dtype == np.int32
    assert row.ids.tolist() == goldens[f"ids_{number}"].tolist()
    assert [item.kind for item in row.media] == names
    if "video" in names:
        seconds = [item.seconds_per_grid for item in row.media if item.kind == "video"]
        assert seconds == goldens[f"seconds_{number}"].tolist()


def test_a_plain_prompt_is_a_user_message_behind_the_media(encode):
    names, messages = cases.CHATS[0]
    media = [SOURCES[name] for name in names]
    assert (encode(media, "What moves?").ids == encode(media, messages).ids).all()


def test_media_can_be_encoded_before(encode):
    media = encode_media(SOURCES["video"], PROCESSOR)
    row = encode([media], "What moves?")
    assert row.media == (media,)
    assert (row.ids == encode([SOURCES["video"]], "What moves?").ids).all()


def test_system_prompt(encode, tokenizer):
    messages = [{"role": "user", "content": "Only text."}]
    with_system = [{"role": "system", "content": "Be kind."}, *messages]
    assert (encode([], messages, system="Be kind.").ids == encode([], with_system).ids).all()
    assert "Be kind." in tokenizer.decode(encode([], "Only text.", system="Be kind.").ids)
    with pytest.raises(HippoError, match="system message already"):
        encode([], with_system, system="Be kind.")


def test_a_row_can_end_with_the_answer(encode, tokenizer):
    messages = [
        {"role": "user", "content": "Is it?"},
        {"role": "assistant", "content": "Yes."},
    ]
    text = tokenizer.decode(encode([], messages, add_generation_prompt=False).ids)
    assert text.endswith("Yes.<|im_end|>\n")


@pytest.mark.parametrize(
    ("names", "number"), [([], 0), (["video", "video"], 0), (["image"], 0), (["video", "image"], 1)]
)
def test_media_that_do_not_fit_the_placeholders(encode, names, number):
    with pytest.raises(HippoError, match="places for"):
        encode([SOURCES[name] for name in names], cases.CHATS[number][1])


@pytest.mark.parametrize(
    "token", ["<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"]
)
def test_special_tokens_in_texts_are_refused(encode, token):
    text = f"Look: {token}!"
    for prompt in (
        text,
        [{"role": "user", "content": text}],
        [{"role": "user", "content": [{"type": "text", "text": text}]}],
        [{"role": "system", "content": text}, {"role": "user", "content": "Only text."}],
    ):
        with pytest.raises(HippoError, match="special token") as caught:
            encode([], prompt)
        assert "\n" not in str(caught.value)
    with pytest.raises(HippoError, match="special token"):
        encode([], "Only text.", system=text)


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        b"bytes",
        5,
        [],
        ["text"],
        [{"role": "user"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "sound"}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": ["text"]}],
    ],
)
def test_prompts_of_another_shape_are_refused(encode, prompt):
    with pytest.raises(HippoError):
        encode([], prompt)


def test_a_template_that_refuses(encode, tokenizer, monkeypatch):
    template = "{{ raise_exception('roles must\nalternate') }}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(HippoError, match="roles must alternate"):
        encode([], "Only text.")


def test_a_template_that_loses_the_video(encode, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages[0]['role'] }}")
    with pytest.raises(HippoError, match="no video or image but 1 video"):
        encode([SOURCES["video"]], "What moves?")


def test_no_template(encode, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(HippoError, match="no chat template"):
        encode([], "Only text.")


def test_a_tokenizer_of_another_model(tokenizer):
    alien = Special(10_000, 10_001, 10_002, 10_003)
    with pytest.raises(HippoError, match="do not belong together"):
        encode_row(tokenizer, alien, PROCESSOR, [], "Only text.")


def test_templates_of_the_checkpoint_win(tmp_path):
    shutil.copy(HERE / "tokenizer" / "tokenizer.json", tmp_path)
    shutil.copy(HERE / "tokenizer" / "tokenizer_config.json", tmp_path)
    assert not load_tokenizer(tmp_path).chat_template
    (tmp_path / "chat_template.json").write_text('{"chat_template": "old"}')
    assert load_tokenizer(tmp_path).chat_template == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert load_tokenizer(tmp_path).chat_template == "new"


def test_a_missing_or_broken_tokenizer(tmp_path):
    with pytest.raises(HippoError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(HippoError, match="cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
