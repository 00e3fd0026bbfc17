"""A video or an image as the patches that the vision tower reads."""

from typing import Any

import numpy as np

from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.patches import patchify
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.resize import resize_frames, smart_resize
from hippo_jax.inputs.video import Video, check_frames


def encode_media(media: Any, processor: ProcessorConfig) -> Media:
    """Resizes, normalises and cuts a `Video` or an image uint8 [H, W, 3]; `Media` stays as it is.

    All frames of the video are used. Its temporal units are processor.temporal_patch_size frames,
    hence seconds_per_grid = temporal_patch_size / video.fps. An image is one unit, its pixels
    repeated in time. HippoError: no such array, or an aspect ratio above 200.
    """
    if isinstance(media, Media):
        return media
    if isinstance(media, Video):
        kind, frames = "video", media.frames
        bounds = {"min_pixels": processor.min_pixels, "max_pixels": processor.max_pixels}
        seconds = processor.temporal_patch_size / media.fps
    else:
        kind, frames = "image", check_frames(media, "an image", 3)[None]
        bounds = {
            "min_pixels": processor.image_min_pixels,
            "max_pixels": processor.image_max_pixels,
        }
        seconds = 1.0
    height, width = smart_resize(*frames.shape[1:3], factor=processor.factor, **bounds)
    pixels, grid = patchify(
        np.ascontiguousarray(resize_frames(frames, height, width)),
        patch_size=processor.patch_size,
        temporal_patch_size=processor.temporal_patch_size,
        merge_size=processor.merge_size,
        mean=processor.mean,
        std=processor.std,
        rescale=processor.rescale,
    )
    return Media(kind=kind, pixels=pixels, grid=grid, seconds_per_grid=seconds)
