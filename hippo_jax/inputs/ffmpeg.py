"""Frames out of a video file, by ffmpeg as a child process (the binary of imageio-ffmpeg).

Two jobs: list the frames of a file with their times, and decode chosen ones. ffmpeg itself picks
the frames, so a long file costs neither memory nor a pipe full of pixels; each comes as a PPM
image, which carries the size that it really has after rotation. Every run lists the times of the
frames it decoded, and the caller's choice is checked against them.
"""

import dataclasses
import re
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.ffmpeg_process import LISTING, Ffmpeg

# No real frame comes near this area; one of a damaged header does.
_MAX_PIXELS = 2**27
_MAX_RANGES = 1500
# Containers and bare streams of video, and a few of sound (for a better message). Playlists,
# scripts and text, which ffmpeg would also open, are left out on purpose.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,apng,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,"
    "dv,h264,hevc,m4v,ivf,obu,yuv4mpegpipe,mp3,wav,flac,aac"
)
# ffmpeg's own words begin with their source in brackets; a file's title does not.
_TRUNCATED = re.compile(r"^\[.*\] .*(partial file|ended prematurely|[Tt]runcat)", re.MULTILINE)
_COMPLAINT = re.compile(r"^\[.*\] .*([Ee]rror|corrupt)", re.MULTILINE)
_LIST = ["-fps_mode", "passthrough", "-flush_packets", "1", "-f", "framecrc", LISTING]
_UNSET = -(2**63)


class FramesChanged(Exception):
    """The frames decoded are not those that the listing announced."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """Frames of a file in the order they are shown.

    times: float64 [n] seconds, ascending, as the file counts them (need not start at 0).
    tick: seconds; times are multiples of it. tail: seconds the last frame lasts, or 0 (unknown).
    file_start: seconds at which the file begins (its sound may begin before its frames).
    announced_fps: what the file's header says, or 0. safe_end: seconds; all frames before this
    time are known to be there, infinite unless the file breaks off. exact: the times are those
    of decoded frames (else of packets, from which a few frames may be missing). counted: the file
    has no times, they are made up from a rate. complaints: the decoder reported errors.
    """

    times: np.ndarray
    tick: float
    tail: float
    file_start: float
    announced_fps: float
    safe_end: float
    exact: bool
    counted: bool = False
    complaints: bool = False


def list_frames(path: Path, *, decode: bool) -> Listing:
    """Lists the frames of a file: `decode=False` from its packets (fast), else by decoding all.

    HippoError: ffmpeg cannot read the file, or it has no video, or no frame.
    """
    codec = ["-c:v", "wrapped_avframe", "-enc_time_base", "demux"] if decode else ["-c", "copy"]
    with tempfile.TemporaryDirectory(prefix="hippo-") as folder:
        arguments = [*_input(path), "-map", "0:V:0", *codec, *_LIST]
        with Ffmpeg(arguments, Path(folder), level="info", name=str(path)) as child:
            child.wait()
        log = child.log()
        lines = _parse_listing(Path(folder) / LISTING)
    if lines is None or len(lines.pts) == 0:
        raise HippoError(_why_no_frames(path, log))
    order = np.argsort(lines.pts, kind="stable")
    tail = float(lines.duration[order[-1]] * lines.tick)
    truncated = bool(_TRUNCATED.search(log)) or _gif_without_end(path)
    rate = re.search(r"^ *Stream #.* Video: .* ([0-9.]+) fps", log, re.MULTILINE)
    start = re.search(r"^ *Duration: .* start: (-?[0-9.]+)", log, re.MULTILINE)
    exact = decode and bool((lines.pts != _UNSET).all())
    if not exact and not _trustworthy(lines.pts):
        if not decode:
            return list_frames(path, decode=True)
        # Frames without times: count them at the announced rate.
        fps = float(rate.group(1)) if rate and float(rate.group(1)) > 0 else 25.0
        times = np.arange(len(order)) / fps
        return Listing(times, 1 / fps, 1 / fps, 0.0, fps, np.inf, exact=True, counted=True)
    return Listing(
        times=lines.pts[order] * lines.tick,
        tick=lines.tick,
        tail=tail if 0 < tail < 3600 else 0.0,
        file_start=float(start.group(1)) if start else 0.0,
        announced_fps=float(rate.group(1)) if rate else 0.0,
        # Decoding order never runs ahead of what is missing: a lost packet comes after this one.
        safe_end=float(lines.dts[-1] * lines.tick) if truncated else np.inf,
        exact=decode,
        complaints=bool(_COMPLAINT.search(log)),
    )


def decode_frames(
    path: Path, listing: Listing, ordinals: Sequence[int], *, seek: bool = True
) -> Generator[np.ndarray, None, None]:
    """Decodes the frames uint8 [H, W, 3] of the given ordinals (ascending, distinct) of a listing.

    With `seek`, decoding begins near the first one instead of at the beginning. Frames are
    turned upright as the file asks. Raises FramesChanged, at the latest after the last frame, if
    the file does not decode to the listed frames: what was yielded is then to be thrown away.
    HippoError if ffmpeg fails or hangs.
    """
    times, first, last = listing.times, ordinals[0], ordinals[-1]
    before: list[str] = []
    if seek and first > 0 and times[first] - times[0] > 1.0:
        # Half-way between two frames, so that rounding moves none across the border.
        moment = (times[first - 1] + times[first]) / 2
        before = ["-ss", f"{moment - listing.file_start:.6f}"]
        expected = times[first : last + 1]
    else:
        expected = times[: last + 1]
    skipped = last + 1 - len(expected)
    wanted = [ordinal - skipped for ordinal in ordinals]
    ranges = _ranges(wanted)
    dense = len(ranges) > _MAX_RANGES
    picked = _expression([(wanted[0], wanted[-1])] if dense else ranges, expected, listing)
    graph = f"[0:V:0]split[all][some];[some]select='{picked}'[picked]"
    count = wanted[-1] - wanted[0] + 1 if dense else len(wanted)
    with tempfile.TemporaryDirectory(prefix="hippo-") as folder:
        arguments = [*before, *_input(path), "-filter_complex", graph]
        arguments += ["-map", "[picked]", "-frames:v", str(count), "-fps_mode", "passthrough"]
        arguments += ["-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "pipe:1"]
        arguments += ["-map", "[all]", "-frames:v", str(len(expected)), "-c:v", "wrapped_avframe"]
        arguments += ["-enc_time_base", "demux", *_LIST]
        with Ffmpeg(arguments, Path(folder), level="error", name=str(path)) as child:
            keep = set(wanted) if dense else None
            for place in range(count):
                frame = child.read_image()
                if frame is None:
                    raise FramesChanged
                if keep is None or wanted[0] + place in keep:
                    yield frame
            child.wait()
        lines = _parse_listing(Path(folder) / LISTING)
    if lines is None or len(lines.pts) != len(expected):
        raise FramesChanged
    seen = np.sort(lines.pts) * lines.tick
    if not listing.counted and np.abs(seen - expected).max() > listing.tick:
        raise FramesChanged


def _input(path: Path) -> list[str]:
    # The prefix keeps ffmpeg from reading a name as an option or as another protocol.
    reader = ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS]
    return [*reader, "-max_pixels", str(_MAX_PIXELS), "-i", f"file:{path.resolve()}"]


def _ranges(ordinals: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending integers as closed ranges."""
    ranges: list[tuple[int, int]] = []
    for ordinal in ordinals:
        if ranges and ranges[-1][1] == ordinal - 1:
            ranges[-1] = (ranges[-1][0], ordinal)
        else:
            ranges.append((ordinal, ordinal))
    return ranges


def _expression(ranges: list[tuple[int, int]], times: np.ndarray, listing: Listing) -> str:
    """ffmpeg expression that is 1 for the frames within closed ranges of ordinals of `times`.

    A search tree, as it is evaluated for every frame. Frames are told by their time t; their
    number n, which begins anew where a video changes its size, serves only where times do not.
    """
    if listing.counted or bool((np.diff(times) <= listing.tick / 2).any()):
        variable, values, margin = "n", np.arange(len(times), dtype=np.float64), 0.5
    else:
        variable, values, margin = "t", times, 0.4 * listing.tick
    before, behind = (values - margin).tolist(), (values + margin).tolist()

    def tree(part: list[tuple[int, int]]) -> str:
        if len(part) <= 2:
            return "+".join(
                f"between({variable},{before[low]!r},{behind[high]!r})" for low, high in part
            )
        middle = len(part) // 2
        border = before[part[middle][0]]
        return f"if(lt({variable},{border!r}),{tree(part[:middle])},{tree(part[middle:])})"

    return tree(ranges)


@dataclasses.dataclass(frozen=True)
class _Lines:
    pts: np.ndarray
    dts: np.ndarray
    duration: np.ndarray
    tick: float


def _parse_listing(path: Path) -> _Lines | None:
    """Reads ffmpeg's framecrc text; None if there is none."""
    if not path.is_file():
        return None
    tick = 0.0
    rows: list[tuple[int, int, int]] = []
    with path.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("#tb 0:"):
                above, _, below = line[6:].strip().partition("/")
                tick = int(above) / int(below)
            elif not line.startswith("#"):
                fields = line.split(",")
                if len(fields) < 5:
                    continue  # a last line cut short
                rows.append((int(fields[1]), int(fields[2]), int(fields[3])))
    if not tick:
        return None
    table = np.array(rows, np.int64).reshape(-1, 3)
    return _Lines(pts=table[:, 1], dts=table[:, 0], duration=table[:, 2], tick=tick)


def _trustworthy(pts: np.ndarray) -> bool:
    return bool((pts != _UNSET).all()) and len(np.unique(pts)) == len(pts)


def _gif_without_end(path: Path) -> bool:
    """GIF announces no length, but ends with a mark; without it the last frame is incomplete."""
    with path.open("rb") as file:
        if not file.read(6).startswith(b"GIF8"):
            return False
        file.seek(max(0, path.stat().st_size - 16))
        return b";" not in file.read()


def _why_no_frames(path: Path, log: str) -> str:
    if "matches no streams" in log:
        sound = " (only sound)" if " Audio: " in log else ""
        return f"{path} holds no video{sound}; give a file with a video stream"
    if "Input #0" in log:
        return f"{path} holds no frame that can be read; it is empty, truncated or damaged"
    if "moov atom not found" in log:
        return f"{path} is truncated or was never finished (its index is missing); fetch it again"
    if "not on whitelist" in log:
        return f"{path} is not in a video format that is read here (mp4, webm, mov, gif, mkv, ...)"
    said = re.search(r"Error opening input: (.{1,160})", log)
    detail = said.group(1) if said else "ffmpeg does not say why"
    return f"{path} cannot be read as a video ({detail}); is it a video file, and complete?"
