"""Frames from arrays and folders of images."""

import numpy as np
import pytest
from inputs import clips
from PIL import Image

from hippo_jax.errors import HippoError
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.video import Video, natural_key, read_image, read_video

FRAMES = np.stack([clips.barcode(number, 30, 40) for number in range(20)])


def save(folder, names, size=(30, 40)):
    for number, name in enumerate(names):
        Image.fromarray(clips.barcode(number, *size)).save(folder / name)


def test_a_video_is_sampled_at_its_rate():
    got = read_video(Video(FRAMES, 10.0), fps=2, start=0.4, end=1.6)
    # 12 frames of 0.1 s at 2 a second are 2.4, but 4 are the least.
    assert clips.numbers(got.frames) == [4, 7, 10, 13]
    assert got.fps == pytest.approx(4 / 12 * 10)
    assert read_video(Video(FRAMES, 10.0)).fps == 10.0


def test_an_array_is_already_sampled():
    assert read_video(FRAMES).fps == 1.0
    assert read_video(FRAMES, limits=ProcessorConfig(fps=2.0)).fps == 2.0
    assert len(read_video(FRAMES[:7], fps=4).frames) == 7  # sampling would give an even number
    got = read_video(FRAMES, fps=4)
    assert got.fps == 4.0 and len(got.frames) == 20
    assert clips.numbers(read_video(FRAMES, fps=4, start=1.0, end=2.0).frames) == [4, 5, 6, 7]
    got = read_video(FRAMES, num_frames=4)
    assert clips.numbers(got.frames) == [0, 5, 10, 15] and got.fps == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (FRAMES.astype(np.float32), "float32"),
        (FRAMES.astype(np.int64), "int64"),
        (FRAMES[0], "shape"),
        (FRAMES.transpose(0, 3, 1, 2), "channels to the end"),
        (FRAMES[..., :1], "shape"),
        (FRAMES[:0], "no frames"),
        (FRAMES[:, :0], "no frames or no pixels"),
        (None, "NoneType"),
        ({"a": 1}, "dict"),
        ([FRAMES[0], FRAMES[0, :5]], "no array"),
        (["a", "b"], "list"),
    ],
)
def test_arrays_that_are_no_frames(frames, message):
    with pytest.raises(HippoError, match=message) as caught:
        read_video(frames)
    assert "\n" not in str(caught.value)
    with pytest.raises(HippoError):
        Video(frames, 2.0)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), None, "fast"])
def test_a_video_has_a_rate(fps):
    with pytest.raises(HippoError, match="fps"):
        Video(FRAMES, fps)


def test_a_folder_is_sorted_by_numbers(tmp_path):
    save(tmp_path, ["f1.png", "f2.png", "f9.PNG", "f10.png", "f11.bmp", "g0.png"])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    got = read_video(tmp_path)
    assert clips.numbers(got.frames) == list(range(6)) and got.fps == 1.0
    assert read_video(tmp_path, fps=2).fps == 2.0
    assert clips.numbers(read_video(str(tmp_path), num_frames=2).frames) == [0, 3]
    assert clips.numbers(read_video(tmp_path, fps=2, start=1.0, end=2.0).frames) == [2, 3]


def test_natural_order():
    names = ["a2b10", "a2b9", "a10", "a01", "A1", "b", "", "1", "a"]
    ordered = ["", "1", "a", "A1", "a01", "a2b9", "a2b10", "a10", "b"]
    assert sorted(names, key=natural_key) == ordered


def test_folders_that_are_no_video(tmp_path):
    with pytest.raises(HippoError, match="holds no images"):
        read_video(tmp_path)
    save(tmp_path, ["1.png", "2.png"])
    save(tmp_path, ["3.png"], size=(40, 30))
    with pytest.raises(HippoError, match="change from 30x40 to 40x30"):
        read_video(tmp_path)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    with pytest.raises(HippoError, match=r"2\.png cannot be read") as caught:
        read_video(tmp_path)
    assert "\n" not in str(caught.value)


def test_only_sampled_images_are_opened(tmp_path):
    save(tmp_path, [f"{number}.png" for number in range(8)])
    (tmp_path / "3.png").write_text("broken")
    assert clips.numbers(read_video(tmp_path, num_frames=4).frames) == [0, 2, 4, 6]


def test_images(tmp_path):
    frame = clips.barcode(5, 30, 40)
    assert read_image(frame) is frame
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    turned = Image.fromarray(np.rot90(frame).copy())
    turned.save(tmp_path / "turned.png", exif=exif)
    assert (read_image(tmp_path / "turned.png") == frame).all()
    Image.fromarray(frame[..., 0]).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (30, 40, 3)
    with pytest.raises(HippoError, match="does not exist"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(HippoError, match="shape"):
        read_image(FRAMES)
