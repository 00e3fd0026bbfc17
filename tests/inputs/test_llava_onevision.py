"""LLaVA-OneVision's inputs against the goldens of its processors in transformers."""

import functools
import json

import numpy as np
import pytest
from inputs import golden_cases_llava_onevision as cases
from support import checks_llava_inputs as checks
from support import families, tiny_llava
from support.tiny_llava import ODD

import hippo_jax as hj
from hippo_jax.architectures.llava_onevision.processor import Processor
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.inputs.resize import resize_frames

MODEL, HF = functools.partial(families.model, ODD), functools.partial(families.hf_model, ODD)


@pytest.mark.parametrize("check", [checks.check_pixels, checks.check_sampling, checks.check_ids])
def test_goldens(check):
    check()


def test_what_the_picture_of_tokens_shows_is_the_frame():
    """Pixels come back as the resized frame, whole patches of it."""
    frames = cases.video(*cases.VIDEO)
    media = checks.SMALL.encode_video(hj.Video(frames, 4.0))
    resized = resize_frames(frames, 100, 100)[:, :98, :98]
    for frame in range(3):
        seen = checks.SMALL.seen_frame(media.pixels, frame * 16, 4, 4)
        np.testing.assert_array_equal(seen, resized[frame])


def test_frames_are_taken_as_given():
    assert checks.SMALL.frame_indices(128, 30.0).tolist() == list(range(128))
    assert checks.SMALL.frame_indices(256, 30.0).tolist() == list(range(0, 256, 2))


PUBLISHED = {
    "crop_size": None,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_grid_pinpoints": [[384, 384], [384, 768]],
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "LlavaOnevisionImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 384, "width": 384},
}


def folder(tmp_path, hf=None, **files):
    """A checkpoint directory: preprocessor files, and with ``hf`` model and tokenizer."""
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    if hf is not None:
        hf.save_pretrained(tmp_path)
        cases.tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_published_files(tmp_path):
    read = Processor.from_directory(folder(tmp_path, preprocessor_config=PUBLISHED))
    assert read == Processor(side=384, mean=cases.HALF, std=cases.HALF)


def test_files_that_name_nothing_are_the_class_of_transformers(tmp_path):
    read = Processor.from_directory(folder(tmp_path, video_preprocessor_config={"do_resize": True}))
    assert (read.side, read.mean, read.std) == (384, *cases.CLIP)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": {"height": 384, "width": 380}}, "no square"),
        ({"size": {"shortest_edge": 384}}, "height and width"),
        ({"size": 384}, "height and width"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"do_normalize": False}, "do_normalize"),
        ({"image_std": [0.5, 0, 0.5]}, "std"),
        ({"size": {"height": 13, "width": 13}}, "no patch"),
    ],
)
def test_files_that_are_refused(tmp_path, fields, message):
    with pytest.raises(hj.HippoError, match=message) as raised:
        Processor.from_directory(folder(tmp_path, preprocessor_config={**PUBLISHED, **fields}))
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The tiny model with all its files."""
    small = {**PUBLISHED, "size": {"height": cases.SIDE, "width": cases.SIDE}}
    directory = folder(tmp_path_factory.mktemp("llava"), HF(), preprocessor_config=small)
    return hj.load_model(directory, dtype="float32")


def test_prepare_inputs_is_the_processor_and_the_arrays(loaded):
    """From frames and a question to the batch that the processor's arrays give, and its logits."""
    video = hj.Video(cases.video(*cases.VIDEO), 4.0)
    got = hj.prepare_inputs(loaded, video, "What moves?")
    ids = checks.goldens()["ids_0"]
    np.testing.assert_array_equal(got.token_ids[0, : len(ids)], ids)
    media = checks.SMALL.encode_video(video)
    whole = tiny_llava.whole(media.pixels, cases.SIDE)[None]
    given = {"input_ids": ids[None], "pixel_values_videos": whole}
    expected = ModelInputs.from_hf(loaded, given)
    for ours, theirs in zip(vars(got).items(), vars(expected).items(), strict=True):
        if ours[0] not in ("table", "vision"):
            np.testing.assert_array_equal(ours[1], theirs[1], err_msg=ours[0])
    np.testing.assert_array_equal(got.vision.pixels, expected.vision.pixels)
    np.testing.assert_array_equal(got.vision.layout.lines, expected.vision.layout.lines)
    text = hj.generate(loaded, got, max_new_tokens=4).text(loaded.tokenizer)
    assert len(text) == 1


@pytest.mark.parametrize(
    ("video", "prompt", "options", "message"),
    [
        (np.zeros((80, 60, 3), np.uint8), "What?", {}, "video of one frame"),
        ([[np.zeros((80, 60, 3), np.uint8)]], "What?", {}, "video of one frame"),
        (
            None,
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}],
            {},
            "1 image",
        ),
        (None, "What is <video>?", {}, "special token <video>"),
        (hj.Video(cases.video(*cases.VIDEO), 4.0), "What?", {"max_pixels": 9999}, "max_pixels"),
        (np.zeros((33, 20, 20, 3), np.uint8), "What?", {}, "model allows 512"),
    ],
)
def test_refusals_of_prepare_inputs(loaded, video, prompt, options, message):
    with pytest.raises(hj.HippoError, match=message) as raised:
        hj.prepare_inputs(loaded, video, prompt, **options)
    assert "\n" not in str(raised.value)


def test_processor_and_model_of_different_sizes(tmp_path):
    directory = folder(tmp_path, HF(), preprocessor_config=PUBLISHED)
    with pytest.raises(hj.HippoError, match=r"384 pixels, config\.json says 100"):
        hj.prepare_inputs(hj.load_model(directory), None, "What?")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": np.zeros((1, 3, 100, 100))}, "video of one frame"),
        ({"pixel_values_videos": np.zeros((1, 2, 3, 98, 98))}, "shape"),
        ({"pixel_values_videos": np.zeros((2, 3, 100, 100))}, "shape"),
        ({"pixel_values_videos": np.zeros((1, 0, 3, 100, 100))}, "shape"),
        ({"pixel_values_videos": np.zeros((1, 1, 3, 100, 100))}, "placeholders"),
        ({"pixel_values_videos": np.zeros((1, 3, 3, 100, 100))}, "placeholders"),
        ({"pixel_values_videos": np.zeros((2, 2, 3, 100, 100))}, "placeholders"),
        ({"pixel_values_videos": None}, "placeholders"),
        ({"pixel_values_videos": np.full((1, 2, 3, 100, 100), np.nan)}, "finite"),
    ],
)
def test_arrays_that_do_not_fit(change, message):
    arrays = {name: x.numpy() for name, x in ODD.hf_inputs(ODD.rows()[:1]).items()}
    given = {**arrays, **change}
    with pytest.raises(hj.HippoError, match=message) as raised:
        ModelInputs.from_hf(MODEL(), given)
    assert "\n" not in str(raised.value)
