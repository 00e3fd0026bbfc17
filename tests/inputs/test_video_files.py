"""The right frames out of video files of every kind."""

import math
import tracemalloc

import numpy as np
import pytest
from inputs import clips

from hippo_jax.inputs import ffmpeg, video
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.video import read_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def mp4(folder):
    """50 frames at 10 a second, with B-frames, a key frame every 10."""
    return clips.write(folder / "plain.mp4", 50)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "gif", "avi"])
def test_every_container(folder, suffix):
    path = clips.write(folder / f"container.{suffix}", 24)
    got = read_video(path)
    assert got.frames.shape == (24, 48, 64, 3) and got.frames.dtype == np.uint8
    assert clips.numbers(got.frames) == list(range(24))
    assert got.fps == pytest.approx(10)
    assert clips.upright(got.frames[5])


@pytest.mark.parametrize("size", [(51, 35), (35, 51), (1, 2), (17, 16)])
def test_odd_sizes(folder, size):
    path = clips.write(
        folder / f"odd_{size[0]}x{size[1]}.webm", 6, "-pix_fmt", "yuv444p", size=size
    )
    got = read_video(path)
    assert got.frames.shape == (6, *size, 3)
    if min(size) > 16:
        assert clips.numbers(got.frames) == list(range(6))


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotation_flags(folder, suffix, angle):
    # The frames are turned before coding and carry the flag that turns them back.
    turn = {90: "transpose=1", 180: "hflip,vflip", 270: "transpose=2"}[angle]
    lying = clips.write(folder / f"lying{angle}.{suffix}", 5, "-vf", turn, size=(54, 90))
    path = folder / f"turned{angle}.{suffix}"
    clips.ffmpeg("-display_rotation", str(angle), "-i", lying, "-c", "copy", path)
    assert not clips.upright(read_video(lying).frames[0])
    got = read_video(path)
    assert got.frames.shape == (5, 54, 90, 3)
    assert all(clips.upright(frame) for frame in got.frames)
    assert clips.numbers(got.frames) == list(range(5))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fps": 2}, list(range(0, 50, 5))),
        ({"fps": 10}, list(range(50))),
        ({"fps": 100}, list(range(50))),
        ({"num_frames": 4}, [0, 12, 25, 37]),
        ({"start": 2.5, "fps": 5}, list(range(25, 49, 2))),
        ({"start": 3.95, "end": 4.55}, [40, 41, 42, 43, 44, 45]),
        ({"end": 0.4}, [0, 1, 2, 3]),
        ({"end": 99.0, "start": 4.0, "num_frames": 2}, [40, 45]),
        ({"start": 4.9}, [49]),
    ],
)
def test_sampling(mp4, options, expected):
    got = read_video(mp4, **options)
    assert clips.numbers(got.frames) == expected
    first = math.ceil(options.get("start", 0) * 10)
    span = min(50, math.ceil(options.get("end", 5) * 10)) - first
    assert got.fps == pytest.approx(len(expected) / span * 10)


@pytest.mark.parametrize(
    ("fps", "rate"), [("30000/1001", 30000 / 1001), ("30", 30.0), ("24", 24.0)]
)
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "webm"])
def test_rates_survive_the_rounding_of_times(folder, suffix, fps, rate):
    # Matroska keeps whole milliseconds: measured, 30 a second is 30.001 or 29.999.
    name = f"rate{fps.replace('/', '_')}.{suffix}"
    path = clips.write(folder / name, 60, fps=fps, size=(16, 64))
    assert read_video(path, num_frames=60).fps == pytest.approx(rate, rel=1e-12)


def slow_down(folder, name):
    """20 frames: ten at 10 a second, then ten at 2.5."""
    times = "setpts='if(lt(N,10),N/10,1+(N-10)*0.4)/TB'"
    options = ("-vf", f"settb=1/1000,{times}", "-fps_mode", "passthrough")
    return clips.write(folder / name, 20, *options)


@pytest.mark.parametrize("name", ["slow.mp4", "slow.mkv", "slow.webm"])
def test_variable_frame_rate(folder, name):
    path = slow_down(folder, name)
    starts = [k / 10 if k < 10 else 1 + (k - 10) * 0.4 for k in range(20)]
    got = read_video(path)
    # On average one frame in 0.25 s: 20 slots in 5 s (the last frame lasts as long as its file
    # says, hence the tolerance), each with the frame on screen.
    assert len(got.frames) == 20
    assert got.fps == pytest.approx(4, rel=0.07)
    shown = clips.numbers(got.frames)
    for slot, frame in enumerate(shown):
        moment = slot / got.fps
        assert starts[frame] <= moment + 0.5 / got.fps + 1e-3
        assert frame == 19 or starts[frame + 1] > moment + 0.5 / got.fps - 1e-3
    assert shown[:4] == [1, 3, 5, 8]  # the quick part is thinned out
    assert len(set(shown)) < 20  # the slow part repeats


def test_frames_that_a_file_hides_are_not_shown(mp4, folder):
    # Cut without recoding in the middle of a group: players skip to 2.35 s by an edit list.
    path = folder / "cut.mp4"
    clips.ffmpeg("-ss", "2.35", "-i", mp4, "-c", "copy", path)
    got = read_video(path, fps=10)
    assert clips.numbers(got.frames) == list(range(24, 50))[: len(got.frames)]
    assert clips.numbers(read_video(path, num_frames=2).frames) == [24, 37]


def test_times_need_not_begin_at_zero(mp4, folder):
    for name in ("late.ts", "late.mp4"):
        path = folder / name
        clips.ffmpeg("-i", mp4, "-c", "copy", "-output_ts_offset", "7", path)
        assert clips.numbers(read_video(path, start=2.0, end=2.3).frames) == [20, 21, 22]
        assert clips.numbers(read_video(path, start=4.8).frames) == [48, 49]


def test_sound_and_cover_pictures_are_passed_over(mp4, folder):
    path = folder / "sound.mp4"
    clips.ffmpeg(
        *("-f", "lavfi", "-i", "sine=d=7", "-i", mp4, "-map", "0:a", "-map", "1:v"),
        *("-c:v", "copy", "-c:a", "aac", path),
    )
    assert clips.numbers(read_video(path, start=1.5, end=1.7).frames) == [15, 16]


def test_a_wrong_listing_is_noticed_and_mended(mp4, monkeypatch):
    real = video.list_frames
    calls = []

    def listing(path, *, decode):
        calls.append(decode)
        got = real(path, decode=decode)
        if decode:
            return got
        # A packet that is no frame, as hidden frames of VP8 are.
        times = np.sort(np.append(got.times, got.times[20] + 0.03))
        return ffmpeg.dataclasses.replace(got, times=times)

    monkeypatch.setattr(video, "list_frames", listing)
    assert clips.numbers(read_video(mp4, fps=2).frames) == list(range(0, 50, 5))
    assert calls == [False, True]


def test_one_decoding_is_enough(mp4, monkeypatch):
    calls = []
    real = video.list_frames
    monkeypatch.setattr(
        video,
        "list_frames",
        lambda path, *, decode: calls.append(decode) or real(path, decode=decode),
    )
    read_video(mp4, fps=2)
    read_video(mp4, start=3.0)
    assert calls == [False, False]


def test_very_many_scattered_frames(mp4, monkeypatch):
    monkeypatch.setattr(ffmpeg, "_MAX_RANGES", 3)
    assert clips.numbers(read_video(mp4, fps=2, start=1.0).frames) == list(range(10, 50, 5))


def test_only_sampled_frames_are_held(folder):
    path = clips.write(folder / "long.mp4", 120, size=(180, 240), fps="30")
    frame = 180 * 240 * 3
    tracemalloc.start()
    try:
        got = read_video(path, num_frames=6)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert clips.numbers(got.frames) == list(range(0, 120, 20))
    # The six, the one being read, and small change (a pipe's buffer of 1 MiB among it).
    assert peak < 10 * frame + 2**21 < 30 * frame


def test_resizing_on_the_way(mp4):
    limits = ProcessorConfig(min_pixels=784, max_pixels=2 * 784)
    got = read_video(mp4, num_frames=4, limits=limits, resize=True)
    assert got.frames.shape == (4, 28, 28, 3)
    whole = read_video(mp4, num_frames=4, limits=limits)
    assert (video.resize_frame(whole.frames[2], 28, 28) == got.frames[2]).all()


def test_limits_of_the_processor(mp4):
    assert clips.numbers(read_video(mp4, limits=ProcessorConfig(max_frames=10)).frames) == list(
        range(0, 50, 5)
    )
    assert len(read_video(mp4, limits=ProcessorConfig(fps=1.0, min_frames=2)).frames) == 4
    assert len(read_video(mp4, fps=0.1, limits=ProcessorConfig(min_frames=6)).frames) == 6


def test_a_size_that_changes_within_a_file(folder):
    first = clips.write(folder / "first.ts", 5, *clips.X264)
    second = clips.write(
        folder / "second.ts", 5, *clips.X264, "-output_ts_offset", "2", size=(64, 48)
    )
    both = folder / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    # All frames come in the size of the first one.
    got = read_video(both, start=2.0)
    assert got.frames.shape[1:] == (48, 64, 3)
    assert clips.numbers(got.frames)[-1] == 3 and clips.upright(got.frames[-1])


def test_a_title_is_no_error_message(mp4, folder):
    path = folder / "titled.mp4"
    title = "title=truncated, partial file: Error 12 fps, matches no streams"
    clips.ffmpeg("-i", mp4, "-c", "copy", "-metadata", title, path)
    assert clips.numbers(read_video(path, fps=1).frames) == [0, 12, 25, 37]


def test_names_that_ffmpeg_would_take_for_something_else(mp4, folder, monkeypatch):
    odd = folder / "names"
    odd.mkdir()
    monkeypatch.chdir(odd)
    for name in ("-i.mp4", "a b'c\".mp4", "x%03d.mp4", "concat:a|b.mp4", "größe.mp4"):
        (odd / name).write_bytes(mp4.read_bytes())
        assert len(read_video(name, num_frames=2).frames) == 2
