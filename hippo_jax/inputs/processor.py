"""The processor of Qwen2-VL and Qwen2.5-VL: patches in merge blocks, sizes that keep the aspect."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.patches import levels, patchify
from hippo_jax.inputs.preprocessor_files import integer, number, read_settings, three
from hippo_jax.inputs.protocol import Marks, Spelling
from hippo_jax.inputs.resize import resize_frames, smart_resize
from hippo_jax.inputs.sampling import frame_indices
from hippo_jax.inputs.spelling import spell_places

if TYPE_CHECKING:
    from hippo_jax.inputs.video import Video


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

    @property
    def reserved(self) -> tuple[str, ...]:
        """The special tokens are all that marks visual input."""
        return ()

    def frame_indices(
        self,
        total: int,
        source_fps: float,
        *,
        fps: float | None = None,
        num_frames: int | None = None,
    ) -> np.ndarray:
        """See `sampling.frame_indices`."""
        return frame_indices(total, source_fps, fps=fps, num_frames=num_frames, limits=self)

    def frame_size(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """Bounds are those of one frame, however many there are."""
        return smart_resize(
            height,
            width,
            factor=self.factor,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )

    def encode_video(self, video: "Video") -> Media:
        """A temporal unit is temporal_patch_size frames, hence seconds_per_grid =
        temporal_patch_size / video.fps."""
        height, width = video.frames.shape[1:3]
        size = (height, width) if video.sized else self.frame_size(height, width, len(video.frames))
        return self._cut("video", video.frames, size, self.temporal_patch_size / video.fps)

    def encode_image(self, image: np.ndarray) -> Media:
        """An image is one temporal unit, its pixels repeated in time."""
        size = smart_resize(
            *image.shape[:2],
            factor=self.factor,
            min_pixels=self.image_min_pixels,
            max_pixels=self.image_max_pixels,
        )
        return self._cut("image", image[None], size, 1.0)

    def _cut(self, kind: str, frames: np.ndarray, size: tuple[int, int], seconds: float) -> Media:
        pixels, grid = patchify(
            np.ascontiguousarray(resize_frames(frames, *size)),
            patch_size=self.patch_size,
            temporal_patch_size=self.temporal_patch_size,
            merge_size=self.merge_size,
            mean=self.mean,
            std=self.std,
            rescale=self.rescale,
        )
        return Media(kind=kind, pixels=pixels, grid=grid, seconds_per_grid=seconds)

    def spell(self, text: str, media: Sequence[Media], marks: Marks) -> Spelling:
        """One run of placeholders for each medium."""
        places = {"image": marks.image, "video": marks.video}

        def spelled(item: Media) -> tuple[str, list[int]]:
            return places[item.kind], [math.prod(item.grid) // self.merge_size**2]

        return spell_places(text, media, places, spelled)

    def seen_frame(self, pixels: np.ndarray, line: int, height: int, width: int) -> np.ndarray:
        """The inverse of `patchify` for the first frame of a unit."""
        merge, patch, channels = self.merge_size, self.patch_size, len(self.mean)
        if pixels.shape[1] != channels * self.temporal_patch_size * patch**2:
            raise HippoError(
                f"patches of {pixels.shape[1]} numbers are not {self.temporal_patch_size} frames "
                f"of {channels} colours; inputs and model do not belong together"
            )
        first, count = line * merge**2, height * width * merge**2
        blocks = (height, width, merge, merge, channels, self.temporal_patch_size, patch, patch)
        raw = pixels[first : first + count].reshape(blocks)[..., 0, :, :]
        # From (y block, x block, y patch, x patch, C, y, x) to (y block, y patch, y, ..., C).
        whole = raw.transpose(0, 2, 5, 1, 3, 6, 4)
        side = merge * patch
        return levels(
            whole.reshape(height * side, width * side, channels), self.mean, self.std, self.rescale
        )

    def check_config(self, config: Any) -> None:
        """Patches and merge blocks are those of the model."""
        for name in ("patch_size", "temporal_patch_size", "merge_size"):
            if getattr(self, name) != getattr(config.vision, name):
                raise HippoError(
                    f"the preprocessor files say {name} {getattr(self, name)}, config.json "
                    f"{getattr(config.vision, name)}; they do not belong together"
                )

    def shared(self) -> Mapping[str, Any]:
        """Sizes may differ: frames are resized once, by the target's."""
        return {name: getattr(self, name) for name in ("mean", "std", "rescale")}

    @classmethod
    def from_directory(cls, directory: str | Path) -> Self:
        """Reads a checkpoint directory.

        Bounds are read from `size` (`shortest_edge`, `longest_edge`) and from `min_pixels`,
        `max_pixels`, which win; for images without a part of their own the defaults hold.
        HippoError if no file is there, or a file asks for something this library does not do.
        """
        directory = Path(directory)
        video, image = read_settings(directory)
        settings: dict[str, Any] = {}
        for name in ("patch_size", "temporal_patch_size", "merge_size", "min_frames", "max_frames"):
            if video.get(name) is not None:
                settings[name] = integer(name, video[name], directory)
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if video.get(theirs) is not None:
                settings[ours] = three(theirs, video[theirs], directory)
        for ours, theirs in (("rescale", "rescale_factor"), ("fps", "fps")):
            if video.get(theirs) is not None:
                settings[ours] = number(theirs, video[theirs], directory)
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
            bounds[prefix + ours] = integer(ours, given[0], directory)
        elif size:
            raise HippoError(
                f"{directory}: preprocessor `size` has no {edge}; this library reads "
                "shortest_edge and longest_edge (areas in pixels)"
            )
    return bounds


def _check_positive(name: str, value: int) -> None:
    if not value >= 1:
        raise HippoError(f"preprocessor: {name} {value} must be at least 1; mend it")
