"""InternVL's processor: defaults, files, and whole chats from directories. Goldens are compared in
``support.checks_internvl_inputs``."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from inputs import golden_cases_internvl as cases
from inputs.golden_cases import frames
from support import checks_internvl_inputs as checks
from support import tiny_internvl as tiny
from support.checks_internvl_inputs import PROCESSOR

import hippo_jax as hj
from hippo_jax.architectures.internvl.processor import InternVLProcessor
from hippo_jax.errors import HippoError
from hippo_jax.inputs.video import Video
from hippo_jax.scoring.picture import seen_frames

FILE = {
    "size": {"height": cases.SIDE, "width": cases.SIDE},
    "image_mean": cases.MEAN,
    "image_std": cases.STD,
    "rescale_factor": 1 / 255,
    "resample": 3,
    "crop_to_patches": False,
    "do_sample_frames": False,
}


def test_without_a_wish():
    """All frames, thinned out evenly where there are many; the file's rate where it has one."""
    np.testing.assert_array_equal(PROCESSOR.frame_indices(5, 30.0), range(5))
    many = PROCESSOR.frame_indices(1000, 30.0)
    assert len(many) == 64 and many[0] == 7 and many[-1] == 992
    rated = InternVLProcessor(side=84, fps=2.0)
    np.testing.assert_array_equal(rated.frame_indices(60, 30.0), [7, 22, 37, 52])


def test_seen_frames_are_the_frames():
    raw = np.random.default_rng(0).integers(0, 256, (3, 84, 84, 3), dtype=np.uint8)
    media = PROCESSOR.encode_video(Video(raw, 1.0))
    for number, frame in enumerate(raw):
        seen = PROCESSOR.seen_frame(media.pixels, 9 * number, 3, 3)
        np.testing.assert_array_equal(seen, frame)


@pytest.mark.parametrize("text", ["<video>", "<img>", "</img>", "<IMG_CONTEXT>"])
def test_marks_in_a_prompt_are_refused(text):
    with pytest.raises(HippoError, match="special token"):
        checks.row_of(["video"], f"a {text} b")


def read(tmp_path, file=None, **changes):
    """The processor of a directory."""
    content = {**FILE, **changes} if file is None else file
    content = {name: value for name, value in content.items() if value != "absent"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    return InternVLProcessor.from_directory(tmp_path)


def test_settings_from_files(tmp_path):
    assert read(tmp_path) == PROCESSOR
    found = read(tmp_path, image_mean=0.5, image_std=[0.5] * 3, fps=2, num_frames=8)
    assert (found.mean, found.std, found.fps, found.max_frames) == ((0.5,) * 3, (0.5,) * 3, 2, 8)
    joint = {"image_processor": {**FILE, "size": {"height": 28, "width": 28}}}
    joint["video_processor"] = FILE
    (tmp_path / "processor_config.json").write_text(json.dumps(joint))
    assert read(tmp_path, {}) == PROCESSOR


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"shortest_edge": 448}}, "height and width"),
        ({"size": {"height": 448, "width": 224}}, "no square"),
        ({"size": {"height": 70, "width": 70}}, "do not divide"),
        ({"size": {"height": 0, "width": 0}}, "no patch"),
        ({"size": "absent"}, "no size"),
        ({"image_mean": "absent"}, "no image_mean"),
        ({"image_std": [0, 1, 1]}, "std"),
        ({"image_std": [float("nan"), 1, 1]}, "not a number"),
        ({"rescale_factor": 0}, "rescale"),
        ({"num_frames": 0}, "num_frames"),
        ({"fps": -2}, "fps"),
        ({"do_normalize": False}, "do_normalize"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"resample": 2}, "resample 2"),
    ],
)
def test_files_that_are_refused(tmp_path, changes, message):
    with pytest.raises(HippoError, match=message):
        read(tmp_path, **changes)


def test_only_one_size():
    assert PROCESSOR.with_max_pixels(84 * 84) == PROCESSOR
    with pytest.raises(HippoError, match="always 84 x 84"):
        PROCESSOR.with_max_pixels(84 * 84 - 1)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Checkpoints of a target and a draft with the two sorts of tower, tokenizers and all."""
    found = []
    for tower, width in (("6b", 32), ("300m", 24)):
        directory = tmp_path_factory.mktemp(tower)
        config = tiny.hf_config(tower, hidden_size=width, num_hidden_layers=1)
        config.text_config.vocab_size = 280
        config.image_token_id = 272
        tiny.perturbed(config).save_pretrained(directory)
        cases.save_tokenizer(checks.FOLDER / "tokenizer", directory)
        (directory / "preprocessor_config.json").write_text(json.dumps(FILE))
        found.append(directory)
    return found


def test_from_a_directory_and_from_the_arrays_of_the_reference(directories):
    """A chat with an image and a video through our processor, and through Hugging Face's."""
    pair = hj.load_pair(target=directories[0], draft=directories[1])
    kinds, messages = cases.CHATS[1]
    assert kinds == ["image", "video"]
    media = [frames(*cases.IMAGE)[0], Video(frames(*cases.VIDEOS["small"]), 4.0)]
    ours = hj.prepare_inputs(pair, [media], messages)
    golden = checks.golden("chats")
    given = {"input_ids": golden["ids_1"][None], "pixel_values": golden["image_and_video"]}
    theirs = hj.ModelInputs.from_hf(pair, given)
    np.testing.assert_allclose(ours.vision.pixels, theirs.vision.pixels, atol=0.04)
    for field in dataclasses.fields(hj.ModelInputs):
        if field.name != "vision":
            for one, other in zip(
                jax.tree.leaves(getattr(ours, field.name)),
                jax.tree.leaves(getattr(theirs, field.name)),
                strict=True,
            ):
                np.testing.assert_array_equal(one, other, err_msg=field.name)
    pictures = seen_frames(pair, ours)
    assert [picture.pixels.shape for picture in pictures] == [(84, 84, 3)] * 3


def test_files_of_another_model_are_refused(directories, tmp_path):
    for file in directories[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    sizes = {"size": {"height": 112, "width": 112}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**FILE, **sizes}))
    model = hj.load_model(tmp_path)
    with pytest.raises(HippoError, match="frames of 112 pixels"):
        hj.prepare_inputs(model, np.zeros((2, 50, 50, 3), np.uint8), "What moves?")
    with pytest.raises(HippoError, match="the processor's side"):
        hj.load_pair(target=directories[0], draft=tmp_path)
