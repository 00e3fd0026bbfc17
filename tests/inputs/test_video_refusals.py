"""Files that cannot be read: one clear line, no process left, no waiting."""

import os
import stat
import subprocess

import numpy as np
import pytest
from inputs import clips

from hippo_jax.errors import HippoError
from hippo_jax.inputs import ffmpeg_process, video
from hippo_jax.inputs.video import read_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def mp4(folder):
    return clips.write(folder / "plain.mp4", 50)


def refusal(source, **options):
    """The message of the HippoError that reading raises: one line, always."""
    with pytest.raises(HippoError) as caught:
        read_video(source, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def cut(path, share):
    """A copy of the file that ends after a share of its bytes."""
    short = path.with_name(f"short_{path.name}")
    content = path.read_bytes()
    short.write_bytes(content[: int(len(content) * share)])
    return short


@pytest.mark.parametrize("name", ["fast.mp4", "short.webm", "short.mkv", "short.gif"])
def test_a_truncated_file(folder, name):
    options = ("-movflags", "+faststart") if name.endswith("mp4") else ()
    short = cut(clips.write(folder / name, 50, *options), 0.6)
    message = refusal(short)
    assert "truncated" in message
    assert "truncated" in refusal(short, fps=2, start=1.0)
    # What comes before the break can be had, as the message says, and is right.
    until = float(message.rpartition("end=")[2].rstrip(")"))
    assert 0.5 < until < 4.5
    got = read_video(short, end=until)
    assert clips.numbers(got.frames) == list(range(len(got.frames)))
    assert len(got.frames) == pytest.approx(until * 10, abs=1)
    assert got.fps == pytest.approx(10)


def test_a_file_without_its_index(mp4):
    assert "truncated" in refusal(cut(mp4, 0.6))


def test_frames_that_cannot_be_decoded(folder):
    path = clips.write(folder / "hurt.mp4", 50, "-movflags", "+faststart", "-bf", "0")
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + 4 + (len(content) - content.index(b"mdat")) // 2
    content[middle : middle + 1500] = bytes(1500)
    hurt = folder / "zeros.mp4"
    hurt.write_bytes(content)
    assert "damaged" in refusal(hurt, fps=10)
    assert clips.numbers(read_video(hurt, end=1.0).frames) == list(range(10))


def test_only_sound(folder):
    for name in ("sound.mp4", "sound.wav"):
        clips.ffmpeg("-f", "lavfi", "-i", "sine=d=1", folder / name)
        assert "only sound" in refusal(folder / name)


def test_zero_frames(mp4, folder):
    for name in ("none.mp4", "none.mkv"):
        clips.ffmpeg("-i", mp4, "-frames:v", "0", "-c", "copy", folder / name)
    assert "no video" in refusal(folder / "none.mp4")
    assert "cannot be read as a video (End of file)" in refusal(folder / "none.mkv")
    gif = folder / "none.gif"
    gif.write_bytes(b"GIF89a" + bytes([8, 0, 8, 0, 0, 0, 0]) + b";")
    refusal(gif)
    # The index is there and announces 50 frames, the frames are not.
    whole = clips.write(folder / "index.mp4", 50, "-movflags", "+faststart").read_bytes()
    index = folder / "only_index.mp4"
    index.write_bytes(whole[: whole.index(b"mdat") + 4])
    assert "no frame" in refusal(index)


def test_what_is_no_video(folder, tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "empty" in refusal(empty)
    assert "does not exist" in refusal(tmp_path / "missing.mp4")
    assert "does not exist" in refusal("https://example.com/video.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("Not a video at all.\n" * 100)
    refusal(text)
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(50_000))
    refusal(noise)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    assert "neither a file nor a folder" in refusal(pipe)


def test_lists_that_point_elsewhere_are_not_followed(mp4, tmp_path):
    concat = tmp_path / "list.mp4"
    concat.write_text(f"ffconcat version 1.0\nfile '{mp4}'\n")
    refusal(concat)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{mp4}\n#EXT-X-ENDLIST\n")
    refusal(playlist)
    story = tmp_path / "story.txt"
    story.write_text("Text that ffmpeg would draw as a film.\n" * 50)
    refusal(story)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 2, "num_frames": 4}, "both"),
        ({"fps": 0}, "fps is 0"),
        ({"num_frames": 60}, "exceeds the 50 frames"),
        ({"start": 5.0}, "not before the end"),
        ({"start": -1.0}, "start is -1.0"),
        ({"end": float("nan")}, "end is nan"),
        ({"end": "2"}, "end is '2'"),
        ({"start": 2.0, "end": 2.0}, "not after start"),
        ({"start": 2.01, "end": 2.05}, "no frame begins"),
    ],
)
def test_spans_and_rates(mp4, options, message):
    assert message in refusal(mp4, **options)


def test_an_absurd_aspect_ratio(folder):
    path = clips.write(folder / "ribbon.webm", 4, size=(2, 500))
    assert "aspect ratio" in refusal(path, resize=True)


@pytest.fixture
def children(monkeypatch):
    """Every process started during the test."""
    started = []
    real = subprocess.Popen

    def popen(*args, **kwargs):
        started.append(real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(ffmpeg_process.subprocess, "Popen", popen)
    return started


def test_no_process_is_left_when_reading_breaks_off(mp4, children, monkeypatch):
    class OwnError(Exception):
        pass

    def broken(*_):
        raise OwnError

    monkeypatch.setattr(video, "resize_frame", broken)
    with pytest.raises(OwnError) as caught:
        read_video(mp4, resize=True)
    # The traceback is still alive here and holds the frames of the functions.
    assert caught.tb is not None
    assert len(children) == 2 and all(child.poll() is not None for child in children)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for ffmpeg is a shell script")
def test_a_hanging_ffmpeg_is_stopped(mp4, tmp_path, children, monkeypatch):
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ffmpeg_process, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(ffmpeg_process, "_executable", lambda: str(script))
    assert "no progress" in refusal(mp4)
    assert len(children) == 1 and children[0].poll() is not None


def test_no_ffmpeg(mp4, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    import imageio_ffmpeg._utils

    imageio_ffmpeg._utils._get_ffmpeg_exe.cache_clear()
    try:
        assert "ffmpeg" in refusal(mp4)
    finally:
        monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
        imageio_ffmpeg._utils._get_ffmpeg_exe.cache_clear()
