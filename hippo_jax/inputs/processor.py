"""The numbers of a checkpoint's preprocessor files."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError

_VIDEO_FILE = "video_preprocessor_config.json"
_IMAGE_FILE = "preprocessor_config.json"
_BOTH_FILE = "processor_config.json"  # newer checkpoints keep both parts in this one
_BICUBIC = 3


@dataclasses.dataclass(frozen=True)
class ProcessorConfig:
    """How frames and images become patches. Defaults: Qwen2-VL and Qwen2.5-VL.

    patch_size, merge_size: pixels of a patch, patches (per side) of a visual token.
    temporal_patch_size: frames of a patch.
    min_pixels, max_pixels: bounds of the area of one resized video frame;
    image_min_pixels, image_max_pixels: the same for a still image.
    mean, std: per channel, on values scaled by `rescale` (1/255).
    fps: sampling rate where the caller names none; None takes all frames.
    min_frames, max_frames: bounds of the number of sampled frames.
    """

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    image_min_pixels: int = 56 * 56
    image_max_pixels: int = 1280 * 28 * 28
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    rescale: float = 1 / 255
    fps: float | None = None
    min_frames: int = 4
    max_frames: int = 768

    def __post_init__(self) -> None:
        for name in ("patch_size", "temporal_patch_size", "merge_size", "min_frames"):
            _check_positive(name, getattr(self, name))
        for low, high in (
            ("min_pixels", "max_pixels"),
            ("image_min_pixels", "image_max_pixels"),
            ("min_frames", "max_frames"),
        ):
            _check_positive(low, getattr(self, low))
            if getattr(self, high) < getattr(self, low):
                raise HippoError(
                    f"preprocessor: {high} {getattr(self, high)} is below {low} "
                    f"{getattr(self, low)}; raise it"
                )
        if len(self.mean) != 3 or len(self.std) != 3 or any(not value > 0 for value in self.std):
            raise HippoError(
                f"preprocessor: mean {self.mean} and std {self.std} must be 3 numbers each, "
                "std positive; mend the preprocessor files"
            )
        if not self.rescale > 0:
            raise HippoError(f"preprocessor: rescale {self.rescale} must be positive")
        if self.fps is not None and not (self.fps > 0 and math.isfinite(self.fps)):
            raise HippoError(f"preprocessor: fps {self.fps} must be a positive number")

    @property
    def factor(self) -> int:
        """Sides of resized frames are multiples of this: pixels of a visual token's side."""
        return self.patch_size * self.merge_size

    def with_max_pixels(self, max_pixels: int) -> "ProcessorConfig":
        """The same with another upper bound per frame and per image; lower bounds give way."""
        smallest = self.factor**2
        if not max_pixels >= smallest:
            raise HippoError(
                f"max_pixels {max_pixels} is less than one visual token ({smallest} pixels); "
                "raise it"
            )
        max_pixels = int(max_pixels)
        return dataclasses.replace(
            self,
            max_pixels=max_pixels,
            min_pixels=min(self.min_pixels, max_pixels),
            image_max_pixels=max_pixels,
            image_min_pixels=min(self.image_min_pixels, max_pixels),
        )

    @classmethod
    def from_directory(cls, directory: str | Path) -> "ProcessorConfig":
        """Reads a checkpoint directory.

        For videos: the `video_processor` part of processor_config.json, else
        video_preprocessor_config.json, else preprocessor_config.json; for images:
        the `image_processor` part of processor_config.json, else preprocessor_config.json, else
        the video's (sizes: the defaults). Bounds are read from `size` (`shortest_edge`,
        `longest_edge`) and from `min_pixels`, `max_pixels`, which win. HippoError if no file is
        there, or a file asks for something this library does not do.
        """
        directory = Path(directory)
        both = _read_json(directory / _BOTH_FILE) or {}
        image = both.get("image_processor") or _read_json(directory / _IMAGE_FILE)
        video = both.get("video_processor") or _read_json(directory / _VIDEO_FILE) or image
        if video is None:
            raise HippoError(
                f"{directory} has no {_VIDEO_FILE}, {_IMAGE_FILE} or {_BOTH_FILE}; "
                "copy it from the checkpoint's repository"
            )
        for part in (video, image or {}):
            _check_supported(part, directory)
        settings: dict[str, Any] = {}
        for name in ("patch_size", "temporal_patch_size", "merge_size", "min_frames", "max_frames"):
            if video.get(name) is not None:
                settings[name] = _integer(name, video[name], directory)
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if video.get(theirs) is not None:
                settings[ours] = _three(theirs, video[theirs], directory)
        for ours, theirs in (("rescale", "rescale_factor"), ("fps", "fps")):
            if video.get(theirs) is not None:
                settings[ours] = _number(theirs, video[theirs], directory)
        settings.update(_pixel_bounds(video, "", directory))
        settings.update(_pixel_bounds(image or {}, "image_", directory))
        return cls(**settings)


def _pixel_bounds(part: dict[str, Any], prefix: str, directory: Path) -> dict[str, int]:
    size = part.get("size")
    if size is not None and not isinstance(size, dict):
        raise HippoError(
            f"{directory}: preprocessor `size` is {size!r}; expected shortest_edge and "
            "longest_edge in pixels"
        )
    bounds = {}
    for ours, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        candidates = [part.get(ours), (size or {}).get(ours), (size or {}).get(edge)]
        given = [value for value in candidates if value is not None]
        if given:
            bounds[prefix + ours] = _integer(ours, given[0], directory)
        elif size:
            raise HippoError(
                f"{directory}: preprocessor `size` has no {edge}; this library reads "
                "shortest_edge and longest_edge (areas in pixels)"
            )
    return bounds


def _check_supported(part: dict[str, Any], directory: Path) -> None:
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if part.get(name) is False:
            raise HippoError(
                f"{directory}: the preprocessor file switches {name} off, which this library "
                "does not do; set it to true"
            )
    if part.get("resample") not in (None, _BICUBIC):
        raise HippoError(
            f"{directory}: the preprocessor file asks for resample {part['resample']}; "
            f"only {_BICUBIC} (bicubic) is supported"
        )


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HippoError(f"{path} cannot be read as JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise HippoError(f"{path} holds no JSON object; fetch it again")
    return content


def _number(name: str, value: Any, directory: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise HippoError(f"{directory}: preprocessor {name} is {value!r}, not a number; mend it")
    return float(value)


def _integer(name: str, value: Any, directory: Path) -> int:
    number = _number(name, value, directory)
    if not number.is_integer():
        raise HippoError(f"{directory}: preprocessor {name} is {value!r}, not an integer; mend it")
    return int(number)


def _three(name: str, value: Any, directory: Path) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value] * 3
    return tuple(_number(name, entry, directory) for entry in values)


def _check_positive(name: str, value: int) -> None:
    if not value >= 1:
        raise HippoError(f"preprocessor: {name} {value} must be at least 1; mend it")
