"""A video or an image as the patches that the vision tower reads."""

from typing import Any

from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.protocol import Processor
from hippo_jax.inputs.video import Video, check_frames


def encode_media(media: Any, processor: Processor) -> Media:
    """Resizes, normalises and cuts a `Video` or an image uint8 [H, W, 3]; `Media` stays as it is.

    All frames of the video are used. HippoError: no such array, or a size that the processor
    refuses.
    """
    if isinstance(media, Media):
        return media
    if isinstance(media, Video):
        return processor.encode_video(media)
    return processor.encode_image(check_frames(media, "an image", 3))
