"""Frames that are all squares of one size, cut into patches in raster order."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.patches import levels, patchify
from hippo_jax.inputs.preprocessor_files import integer, number, read_settings, three
from hippo_jax.inputs.resize import resize_frames
from hippo_jax.inputs.sampling import check_rates, check_source

if TYPE_CHECKING:
    from hippo_jax.inputs.video import Video

S = TypeVar("S", bound="SquareFrames")


@dataclasses.dataclass(frozen=True)
class SquareFrames(abc.ABC):
    """What such processors share: a family adds `spread`, `spell` and what it knows of its config.

    A still image is one square like a frame.

    side: pixels of the side that every frame is resized to, whatever its aspect.
    patch_size: pixels of a patch, which the files do not name. What is left at the right and the
      lower border after whole patches is cut off, as the towers' convolutions do.
    mean, std: per channel, on values scaled by `rescale` (1/255).
    fps: sampling rate where the caller names none; None: all frames, at most `max_frames`.
    """

    side: int = 384
    patch_size: int = 14
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    rescale: float = 1 / 255
    fps: float | None = None
    max_frames: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.patch_size <= self.side:
            raise HippoError(
                f"preprocessor: frames of {self.side} pixels hold no patch of {self.patch_size}; "
                "mend `size`"
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
        if self.max_frames < 1:
            raise HippoError(f"preprocessor: {self.max_frames} frames are none; mend num_frames")

    @abc.abstractmethod
    def spread(self, total: int, count: int) -> np.ndarray:
        """The family's way to take `count` of `total` frames."""

    @property
    def patches(self) -> int:
        """Patches a column and a line of a frame."""
        return self.side // self.patch_size

    @property
    def reserved(self) -> tuple[str, ...]:
        """Nothing besides the special tokens of the config."""
        return ()

    def frame_indices(
        self,
        total: int,
        source_fps: float,
        *,
        fps: float | None = None,
        num_frames: int | None = None,
    ) -> np.ndarray:
        """`num_frames` of them, or as many as `fps` gives (at least one, at most all)."""
        check_rates(fps, num_frames)
        check_source(total, source_fps)
        fps = self.fps if fps is None and num_frames is None else fps
        if num_frames is not None:
            count = int(num_frames)
            if count > total:
                raise HippoError(
                    f"num_frames {count} exceeds the {total} frames there are; give less, or a "
                    "longer span"
                )
        elif fps is not None:
            # The order of these float64 operations decides the count where it is nearly whole.
            count = min(max(int(total / source_fps * fps), 1), total)
        elif total <= self.max_frames:
            return np.arange(total)
        else:
            count = self.max_frames
        return self.spread(total, count)

    def frame_size(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """The same for all."""
        return self.side, self.side

    def encode_video(self, video: Video) -> Media:
        """Each frame is a temporal unit of its own."""
        return self._cut("video", video.frames, 1 / video.fps)

    def encode_image(self, image: np.ndarray) -> Media:
        """One frame."""
        return self._cut("image", image[None], 1.0)

    def _cut(self, kind: str, frames: np.ndarray, seconds: float) -> Media:
        covered = self.patches * self.patch_size
        resized = resize_frames(frames, self.side, self.side)[:, :covered, :covered]
        pixels, grid = patchify(
            np.ascontiguousarray(resized),
            patch_size=self.patch_size,
            temporal_patch_size=1,
            merge_size=1,
            mean=self.mean,
            std=self.std,
            rescale=self.rescale,
        )
        return Media(kind=kind, pixels=pixels, grid=grid, seconds_per_grid=seconds)

    def seen_frame(self, pixels: np.ndarray, line: int, height: int, width: int) -> np.ndarray:
        """The inverse of `patchify` for one frame."""
        patch, channels, rows = self.patch_size, len(self.mean), self.patches
        if pixels.shape[1] != channels * patch**2:
            raise HippoError(
                f"patches of {pixels.shape[1]} numbers are not {patch} x {patch} pixels of "
                f"{channels} colours; inputs and model do not belong together"
            )
        first = line // (height * width) * rows**2
        split = pixels[first : first + rows**2].reshape(rows, rows, channels, patch, patch)
        whole = split.transpose(0, 3, 1, 4, 2).reshape(rows * patch, rows * patch, channels)
        return levels(whole, self.mean, self.std, self.rescale)

    def with_max_pixels(self: S, max_pixels: int) -> S:
        """Refused below the one size there is."""
        if not max_pixels >= self.side**2:
            raise HippoError(
                f"max_pixels {max_pixels} is not possible: frames of this model are always "
                f"{self.side} x {self.side} pixels; take fewer of them (fps, num_frames) instead"
            )
        return self

    def check_config(self, config: Any) -> None:
        """Frames and patches are those of the model: `image_size` and `patch_size` of its vision
        config."""
        for name, own, theirs in (
            ("frames", self.side, config.vision.image_size),
            ("patches", self.patch_size, config.vision.patch_size),
        ):
            if own != theirs:
                raise HippoError(
                    f"the processor makes {name} of {own} pixels, config.json says {theirs}; they "
                    "do not belong together"
                )

    def shared(self) -> Mapping[str, Any]:
        """All that makes a pixel."""
        return {name: getattr(self, name) for name in ("side", "mean", "std", "rescale")}

    @classmethod
    def from_directory(cls: type[S], directory: str | Path) -> S:
        """Reads a checkpoint directory.

        `num_frames` in the files bounds the frames of a video for which nothing is asked.
        HippoError if no file is there, or a file asks for something this library does not do.
        """
        directory = Path(directory)
        video, _ = read_settings(directory)
        settings: dict[str, Any] = {}
        if video.get("size") is not None:
            settings["side"] = _side(video["size"], directory)
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if video.get(theirs) is not None:
                settings[ours] = three(theirs, video[theirs], directory)
        for ours, theirs in (("rescale", "rescale_factor"), ("fps", "fps")):
            if video.get(theirs) is not None:
                settings[ours] = number(theirs, video[theirs], directory)
        if video.get("num_frames") is not None:
            settings["max_frames"] = integer("num_frames", video["num_frames"], directory)
        # `do_pad`, which files have too, is about tiles of still images.
        if video.get("do_center_crop"):
            raise HippoError(
                f"{directory}: the preprocessor file asks for do_center_crop, which this library "
                "does not do; set it to false"
            )
        return cls(**settings)


def _side(size: Any, directory: Path) -> int:
    if not isinstance(size, dict) or {"height", "width"} - set(size):
        raise HippoError(
            f"{directory}: preprocessor `size` is {size!r}; expected height and width in pixels"
        )
    height, width = (integer(name, size[name], directory) for name in ("height", "width"))
    if height != width:
        raise HippoError(f"{directory}: preprocessor `size` {height} x {width} is no square")
    return height
