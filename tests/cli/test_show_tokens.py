"""The picture of the tokens that the draft saw, and the file that it is written to."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.cli.show_tokens import picture_path, write_picture
from hippo_jax.errors import HippoError
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.video import read_video
from hippo_jax.scoring.picture import cell_size, seen_frames, token_picture

SIDE = 9  # tokens a line and a column of the clip's frames
CELL = 56  # pixels of a token in its picture
LEFT, TOP = 16, 74  # where the first frame begins, below title and label


@pytest.fixture(scope="module")
def model() -> hj.VideoLM:
    return hj.load_model(resources.checkpoint_directory("demo", "draft"))


@pytest.fixture(scope="module")
def inputs(model: hj.VideoLM) -> hj.ModelInputs:
    return hj.prepare_inputs(model, hj.clip(), "What?")


def picture(model, inputs, *kept: int) -> Image.Image:
    return token_picture(model, inputs, np.array([[*kept, -1]]), title="of one length")


def test_frames_come_back_as_the_model_saw_them(model, inputs) -> None:
    limits = ProcessorConfig.from_directory(model.source)
    video = read_video(hj.clip(), limits=limits, resize=True)
    frames = seen_frames(model, inputs)
    assert [frame.first for frame in frames] == [0, 81, 162, 243]
    assert {frame.grid for frame in frames} == {(SIDE, SIDE)}
    for frame, raw in zip(frames, video.frames[::2], strict=True):
        np.testing.assert_array_equal(frame.pixels, raw)


def test_frames_of_a_row_with_two_sizes_and_an_image(model) -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (112, 168, 3), np.uint8)
    wide = hj.Video(rng.integers(0, 256, (6, 112, 168, 3), np.uint8), 4.0)
    one = hj.prepare_inputs(model, [None, [still, wide, hj.clip()]], "What?", max_pixels=112 * 168)
    frames = seen_frames(model, one, row=1)
    assert [frame.name for frame in frames] == [
        "image 1",
        *(f"video 1, unit {k} of 3" for k in (1, 2, 3)),
        *(f"video 2, unit {k} of 4" for k in (1, 2, 3, 4)),
    ]
    assert [frame.grid for frame in frames] == [(4, 6)] * 4 + [(4, 4)] * 4
    np.testing.assert_array_equal(frames[0].pixels, still)
    for frame, raw in zip(frames[1:4], wide.frames[::2], strict=True):
        np.testing.assert_array_equal(frame.pixels, raw)
    assert token_picture(model, one, np.array([[-1, -1], [0, 24]]), row=1).mode == "RGB"
    with pytest.raises(HippoError, match="no visual tokens"):
        token_picture(model, one)
    with pytest.raises(HippoError, match="no row 2"):
        token_picture(model, one, row=2)


def test_a_kept_token_is_bright_in_its_own_place_and_nowhere_else(model, inputs) -> None:
    nothing = picture(model, inputs)
    whole = np.asarray(picture(model, inputs, *range(324)), np.int32)
    dark = np.asarray(nothing, np.int32)
    for token in (0, 8, 30, 80):
        y, x = TOP + token // SIDE * CELL, LEFT + token % SIDE * CELL
        inside = np.s_[y + 4 : y + CELL - 4, x + 4 : x + CELL - 4]
        kept = np.asarray(picture(model, inputs, token), np.int32)
        np.testing.assert_array_equal(kept[inside], whole[inside])
        assert kept[inside].mean() > 2 * dark[inside].mean() > 0
        assert np.ptp(dark[inside], axis=-1).max() == 0 < np.ptp(kept[inside], axis=-1).max()
        # Beyond the cell only the number in the label above the frame is another.
        kept[y : y + CELL, x : x + CELL] = dark[y : y + CELL, x : x + CELL]
        np.testing.assert_array_equal(kept[TOP:], dark[TOP:])


def test_small_cells_grow_and_huge_pictures_shrink(model, inputs) -> None:
    frames = seen_frames(model, inputs)
    tokens = (324, 2_000, 40_000, 10**6)
    assert [cell_size(frames, count) for count in tokens] == [CELL, 28, 20, 16]


@pytest.mark.parametrize(
    "kept", [[[324]], [0, 1], [[0], [1]], [[0.5]]], ids=["beyond", "flat", "two rows", "floats"]
)
def test_indices_of_other_inputs_are_refused(model, inputs, kept) -> None:
    with pytest.raises(HippoError, match="kept_indices"):
        token_picture(model, inputs, np.array(kept))


def test_a_picture_is_whole_under_its_name_or_not_there(tmp_path: Path) -> None:
    path = picture_path(str(tmp_path / "seen.png"))
    path.write_text("an earlier one")

    class Broken:
        def save(self, place: Path, format: str) -> None:
            place.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_picture(Broken(), path)
    assert path.read_text() == "an earlier one"
    write_picture(Image.new("RGB", (3, 2), "red"), path)
    assert Image.open(path).size == (3, 2)
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "folder.png").mkdir()
    for name, said in (
        ("", "is empty"),
        (str(tmp_path / "x.gif"), "must end in"),
        (str(tmp_path / "x"), "must end in"),
        (str(tmp_path / "folder.png"), "is a folder"),
        (str(tmp_path / "none" / "x.png"), "no folder"),
    ):
        with pytest.raises(HippoError, match=said):
            picture_path(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert picture_path("~/X.JPG") == tmp_path / "X.JPG"
