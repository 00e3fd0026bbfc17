"""Readers of a checkpoint's preprocessor files that processors share."""

import json
import math
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError

VIDEO_FILE = "video_preprocessor_config.json"
IMAGE_FILE = "preprocessor_config.json"
BOTH_FILE = "processor_config.json"  # newer checkpoints keep both parts in this one
_BICUBIC = 3

Settings = dict[str, Any]


def read_settings(directory: str | Path) -> tuple[Settings, Settings | None]:
    """What the files of a checkpoint say of videos and of images.

    For videos: the `video_processor` part of processor_config.json, else
    video_preprocessor_config.json, else what there is for images; for images: the
    `image_processor` part of processor_config.json, else preprocessor_config.json, else None.
    HippoError if there is nothing, or something this library does not do.
    """
    directory = Path(directory)
    both = _read_json(directory / BOTH_FILE) or {}
    image = both.get("image_processor") or _read_json(directory / IMAGE_FILE)
    video = both.get("video_processor") or _read_json(directory / VIDEO_FILE) or image
    if video is None:
        raise HippoError(
            f"{directory} has no {VIDEO_FILE}, {IMAGE_FILE} or {BOTH_FILE}; "
            "copy it from the checkpoint's repository"
        )
    for part in (video, image or {}):
        if not isinstance(part, dict):
            raise HippoError(f"{directory}: the preprocessor file holds no object; fetch it again")
        check_supported(part, directory)
    return video, image


def check_supported(part: Settings, directory: Path) -> None:
    """Refuse what no processor here does: steps switched off, another filter than bicubic."""
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


def number(name: str, value: Any, directory: Path) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise HippoError(f"{directory}: preprocessor {name} is {value!r}, not a number; mend it")
    return float(value)


def integer(name: str, value: Any, directory: Path) -> int:
    """A whole number."""
    found = number(name, value, directory)
    if not found.is_integer():
        raise HippoError(f"{directory}: preprocessor {name} is {value!r}, not an integer; mend it")
    return int(found)


def three(name: str, value: Any, directory: Path) -> tuple[float, ...]:
    """One number a channel."""
    values = value if isinstance(value, list) else [value] * 3
    return tuple(number(name, entry, directory) for entry in values)
