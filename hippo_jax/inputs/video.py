"""Videos as frames: read from a file, a folder of images or an array, only sampled frames kept."""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.ffmpeg import FramesChanged, Listing, decode_frames, list_frames
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.protocol import Processor
from hippo_jax.inputs.resize import resize_frame
from hippo_jax.inputs.sampling import check_rates
from hippo_jax.inputs.timeline import span, timeline

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
# Frames without a rate of their own, and no sampling rate from caller or checkpoint.
_UNTIMED_FPS = 1.0


@dataclasses.dataclass(frozen=True)
class Video:
    """frames: uint8 [F, H, W, 3], RGB. fps: frames a second at which they were taken.
    times: seconds of each frame from the start of the clip, [F]; by default by the rate.
    sized: the frames have been resized to what the processor asks for already.

    Raises HippoError for frames of another shape or type, none at all, a rate that is no
    positive number, or times that are not one finite number a frame.
    """

    frames: np.ndarray
    fps: float
    times: Any = None
    sized: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", check_frames(self.frames, "a video", 4))
        try:
            fps = float(self.fps)
        except (TypeError, ValueError):
            fps = math.nan
        if not (fps > 0 and math.isfinite(fps)):
            raise HippoError(f"a video's fps is {self.fps!r}; give its frames a second, above 0")
        object.__setattr__(self, "fps", fps)
        object.__setattr__(self, "times", self._checked_times())

    def _checked_times(self) -> np.ndarray:
        if self.times is None:
            return np.arange(len(self.frames)) / self.fps
        try:
            times = np.asarray(self.times, np.float64)
        except (TypeError, ValueError):
            times = np.zeros(0)
        if times.shape != (len(self.frames),) or not np.isfinite(times).all():
            raise HippoError(f"a video's times must be {len(self.frames)} numbers, one a frame")
        return times


def read_video(
    source: Any,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    limits: Processor | None = None,
    resize: bool = False,
    folder_fps: float | None = None,
) -> Video:
    """Samples frames of a video; returns them with the rate at which they came to be sampled.

    source: path of a video file (mp4, webm, mov, gif, mkv, ...; upright as its rotation flag asks,
      by time if its frame rate varies), path of a folder of images (PNG, JPEG, BMP, WebP; sorted
      by name, numbers by value), a `Video`, or an array uint8 [F, H, W, 3].
    fps: sampling rate, frames a second. Folders and arrays have no rate of their own: all their
      images are taken as samples made at `fps` (else at limits.fps, else at 1).
    num_frames: number of frames instead, spread evenly. start, end: seconds, [start, end).
    limits: the processor that says which frames are taken; default: ProcessorConfig().
    resize: resizes each frame while it is read to the size that `limits` asks for, which keeps
      memory at that size; the video is then marked as sized.
    folder_fps: frames a second at which the images of a folder were taken; they are then sampled
      like the frames of a file.

    Raises HippoError for what cannot be read or asked: missing, empty, truncated within the span
    asked for, damaged, only sound, fps and num_frames together, a span without frames.
    """
    limits = limits or ProcessorConfig()
    check_rates(fps, num_frames)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            return _read_folder(path, fps, num_frames, start, end, limits, resize, folder_fps)
        return _read_file(path, fps, num_frames, start, end, limits, resize)
    if not isinstance(source, Video):
        source = Video(check_frames(source, "a video", 4), fps or limits.fps or _UNTIMED_FPS)
        fps, limits = None, _without_rate(limits)
    picked, rate, _ = _pick(len(source.frames), source.fps, fps, num_frames, start, end, limits)
    times = source.times[picked] - (start or 0.0)
    size, resized = len(picked), resize or source.sized
    resize = resize and not source.sized
    frames = _collect(iter(source.frames[picked]), size, size, resize, limits)
    return Video(frames, rate, times, resized)


def read_image(source: Any) -> np.ndarray:
    """One image as uint8 [H, W, 3]: from a file (turned upright) or an array of that shape."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        _check_readable(path)
        return _load_image(path)
    return check_frames(source, "an image", 3)


def check_frames(frames: Any, what: str, dimensions: int) -> np.ndarray:
    """The same as a uint8 array [F, H, W, 3] or [H, W, 3]; HippoError says what is wrong."""
    try:
        array = np.asarray(frames)
    except (TypeError, ValueError, RuntimeError) as error:
        raise HippoError(f"{what} is no array ({type(frames).__name__}: {error})") from None
    wanted = "uint8 [F, H, W, 3]" if dimensions == 4 else "uint8 [H, W, 3]"
    if array.dtype == object or array.dtype.kind not in "biuf":
        raise HippoError(
            f"{what} is given as {type(frames).__name__}; give a path or an array {wanted}"
        )
    if array.ndim != dimensions or array.shape[-1] != 3:
        hint = "; move the channels to the end" if 3 in array.shape[-3:-2] else ""
        raise HippoError(f"{what} has shape {array.shape}; expected {wanted}{hint}")
    if 0 in array.shape:
        raise HippoError(f"{what} has shape {array.shape}: no frames or no pixels; give some")
    if array.dtype != np.uint8:
        raise HippoError(
            f"{what} has values of type {array.dtype}; expected {wanted} with values 0 to 255"
        )
    return array


def _pick(
    total: int,
    source_fps: float,
    fps: float | None,
    num_frames: int | None,
    start: float | None,
    end: float | None,
    limits: Processor,
) -> tuple[np.ndarray, float, np.ndarray]:
    """Indices of the frames to take, the rate at which that samples the video, and the frames'
    seconds from the start of the span."""
    first, stop = span(source_fps, total, start, end)
    count = stop - first
    picked = limits.frame_indices(count, source_fps, fps=fps, num_frames=num_frames)
    return picked + first, len(picked) / count * source_fps, picked / source_fps


def _without_rate(limits: Processor) -> Processor:
    """The same for frames that are samples already."""
    without: Processor = dataclasses.replace(cast(Any, limits), fps=None)
    return without


def _collect(
    frames: Iterator[np.ndarray], count: int, shown: int, resize: bool, limits: Processor
) -> np.ndarray:
    """Stacks `count` frames of one size, resized on the way if asked, for a video of `shown`."""
    out: np.ndarray | None = None
    size = None
    for place, frame in enumerate(frames):
        if size is None:
            size = frame.shape
            shape = limits.frame_size(size[0], size[1], shown) if resize else size[:2]
            try:
                out = np.empty((count, *shape, 3), np.uint8)
            except MemoryError:
                raise HippoError(
                    f"{count} frames of {shape[0]}x{shape[1]} pixels do not fit into memory; "
                    "take fewer frames"
                ) from None
        if frame.shape != size:
            raise HippoError(
                f"the frames change from {size[0]}x{size[1]} to {frame.shape[0]}x{frame.shape[1]} "
                "pixels (height x width); give frames of one size"
            )
        assert out is not None
        out[place] = resize_frame(frame, *shape) if resize else frame
    if out is None:
        raise FramesChanged
    return out


def _read_file(
    path: Path,
    fps: float | None,
    num_frames: int | None,
    start: float | None,
    end: float | None,
    limits: Processor,
    resize: bool,
) -> Video:
    _check_readable(path)
    listing = list_frames(path, decode=False)
    safe_end = listing.safe_end
    # The packets of a file tell its frames nearly always; then one decoding is all. Where they
    # do not, or jumping to the start goes wrong, the second listing is made by decoding.
    for attempt in (0, 1):
        if attempt:
            complete, listing = listing, list_frames(path, decode=True)
            _check_undamaged(path, complete, listing, start, end)
        known = safe_end - float(listing.times[0])
        if known < math.inf and (end is None or end > known + 1e-6):
            raise HippoError(
                f"{path} is truncated: only the first {max(known, 0):.2f} s are whole; fetch it "
                "again" + (f", or read up to there (end={_floor(known)})" if known > 0.01 else "")
            )
        if safe_end < math.inf:
            listing = dataclasses.replace(listing, times=listing.times[listing.times < safe_end])
        whole = timeline(
            listing.times,
            tick=listing.tick,
            tail=listing.tail,
            announced_fps=listing.announced_fps,
        )
        slots, rate, times = _pick(len(whole.shown), whole.fps, fps, num_frames, start, end, limits)
        ordinals, places = np.unique(whole.shown[slots], return_inverse=True)
        stream = decode_frames(path, listing, ordinals.tolist(), seek=attempt == 0)
        # Closing ends ffmpeg at once, whatever goes wrong.
        with contextlib.closing(stream), contextlib.suppress(FramesChanged):
            frames = _collect(stream, len(ordinals), len(places), resize, limits)
            frames = frames if len(ordinals) == len(places) else frames[places]
            return Video(frames, rate, times, resize)
    raise HippoError(f"{path} does not decode to the same frames twice (damaged?); re-encode it")


def _check_undamaged(
    path: Path, packets: Listing, decoded: Listing, start: float | None, end: float | None
) -> None:
    """HippoError if frames that the file announces within the span cannot be decoded.

    Packets that a file marks as not to be shown are no loss: ffmpeg does not complain of those.
    """
    if not decoded.complaints or len(decoded.times) >= len(packets.times):
        return
    moments = packets.times - packets.times[0]
    within = (moments >= (start or 0)) & (moments < (math.inf if end is None else end))
    near = np.searchsorted(decoded.times, packets.times - packets.tick)
    near = np.minimum(near, len(decoded.times) - 1)
    lost = within & (np.abs(decoded.times[near] - packets.times) > 1.01 * packets.tick)
    if lost.any():
        first = float(moments[lost][0])
        raise HippoError(
            f"{path} is damaged: {int(lost.sum())} of {int(within.sum())} frames cannot be decoded "
            f"(the first at {first:.2f} s); fetch it again, re-encode it, or set start and end"
        )


def _read_folder(
    folder: Path,
    fps: float | None,
    num_frames: int | None,
    start: float | None,
    end: float | None,
    limits: Processor,
    resize: bool,
    taken: float | None,
) -> Video:
    names = [
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]
    if not names:
        raise HippoError(f"folder {folder} holds no images (PNG, JPEG, BMP, WebP); add the frames")
    names.sort(key=lambda entry: natural_key(entry.name))
    source_fps = taken or fps or limits.fps or _UNTIMED_FPS
    if taken is None:
        fps, limits = None, _without_rate(limits)
    picked, rate, times = _pick(len(names), source_fps, fps, num_frames, start, end, limits)
    frames = (_load_image(names[index]) for index in picked)
    return Video(_collect(frames, len(picked), len(picked), resize, limits), rate, times, resize)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which frame2 comes before frame10, and digits before letters."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]
    return [*key, (-1, 0, name)]


def _load_image(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (
        OSError,
        ValueError,
        SyntaxError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise HippoError(f"{path} cannot be read as an image ({error}); replace it") from None


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise HippoError(f"{path} does not exist; check the path")
    if not path.is_file():
        raise HippoError(f"{path} is neither a file nor a folder; give a video file")
    if not os.access(path, os.R_OK):
        raise HippoError(f"{path} may not be read; change its permissions")
    if path.stat().st_size == 0:
        raise HippoError(f"{path} is empty (0 bytes); fetch it again")


def _floor(seconds: float) -> float:
    return math.floor(seconds * 100) / 100
