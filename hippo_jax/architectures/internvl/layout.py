"""Host-made arrays of InternVL: frames are all alike, a video is a list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.family import Grid
from hippo_jax.architectures.internvl.config import VisionConfig
from hippo_jax.architectures.tower_load import TowerLoad
from hippo_jax.errors import HippoError
from hippo_jax.inputs.from_hf import Arrays, pixel_array
from hippo_jax.inputs.model_inputs import Media, VisionInputs
from hippo_jax.inputs.pixels import stack_pixels
from hippo_jax.inputs.protocol import MediaTokens


def media_tokens(config: VideoLMConfig, media: Media) -> MediaTokens:
    """Every merge block is a scored token."""
    side = config.vision.image_size // config.vision.patch_size
    if media.grid[1:] != (side, side):
        raise HippoError(
            f"a frame has {media.grid[1]} x {media.grid[2]} patches, the vision tower takes "
            f"{side} x {side}; processor and model do not belong together"
        )
    tokens = side // config.vision.merge_size
    return MediaTokens((media.grid[0], tokens, tokens))


def vision_inputs(
    vision: VisionConfig, media: Sequence[Media], tokens: int, draft: VisionConfig | None
) -> VisionInputs:
    """Patches in raster order, for ``tokens`` lines of the table. There are no index arrays: the
    tower finds its frames by counting."""
    return VisionInputs(stack_pixels(media, tokens * vision.merge_size**2, vision.patch_dim), ())


# Frames do not see each other, so that more of them need more time, not more memory: this many
# are alive at once (8 frames of 1025 rows through an MLP of 4096 units are 134 MB in float32).
FRAMES_AT_ONCE = 8


def frame_chunks(vision: VisionConfig, patches: int) -> tuple[int, int]:
    """How many chunks the frames of so many patches go through the tower in, and frames of each."""
    frames = -(-patches // vision.patches_per_frame)
    chunks = -(-frames // FRAMES_AT_ONCE)
    return chunks, -(-frames // chunks)


def tower_load(vision: VisionConfig, grids: Sequence[Grid], tokens: int) -> TowerLoad:
    """A chunk of frames at a time, each with a class token."""
    patches, each = tokens * vision.merge_size**2, vision.patches_per_frame
    chunks, size = frame_chunks(vision, patches)
    whole = chunks * size * each
    return TowerLoad(
        pixels=patches,
        rows=size * (each + 1),
        groups=((size, each + 1),),
        behind=size
        * (2 * each * vision.hidden_size + 2 * vision.tokens_per_frame * vision.out_hidden_size),
        copied=whole * vision.patch_dim if whole != patches or chunks > 1 else 0,
        chunked=chunks > 1,
    )


def shared(config: VideoLMConfig) -> Mapping[str, object]:
    """All that makes a frame."""
    names = ("image_size", "patch_size", "merge_size", "in_channels")
    return {name: getattr(config.vision, name) for name in names}


def media_from_hf(
    config: VideoLMConfig, rows: Sequence[np.ndarray], arrays: Arrays
) -> list[list[Media]]:
    """Frames ``pixel_values [frames, channels, side, side]`` to the runs of placeholders that they
    fill.

    A run of one frame's tokens is a frame of a video where the text around it numbers it (see
    ``_numbered``), else an image; a longer run is an image of several tiles, each of which counts
    as an image of its own here.

    Raises:
        HippoError: frames of another size, or more or fewer of them than placeholders.
    """
    if "pixel_values_videos" in arrays:
        raise HippoError(
            "InternVL's processor gives the frames of videos as pixel_values; leave "
            "pixel_values_videos out"
        )
    each = config.vision.tokens_per_frame
    frames = _frames(config.vision, arrays)
    media: list[list[Media]] = []
    used = 0
    for ids in rows:
        found: list[Media] = []
        for kind, count in _groups(ids, config.image_token_id, each):
            patches = frames[used : used + count]
            if len(patches) < count:
                raise HippoError("input_ids hold more placeholders than pixels were given for")
            used += count
            side = config.vision.image_size // config.vision.patch_size
            flat = patches.reshape(-1, config.vision.patch_dim)
            found.append(Media(kind, flat, (count, side, side)))
        media.append(found)
    if used != len(frames):
        raise HippoError(f"{len(frames) - used} frames have no placeholders in input_ids")
    return media


def _frames(vision: VisionConfig, arrays: Arrays) -> np.ndarray:
    """Frames as patches in raster order, float32 ``[frames, patches, patch_dim]``."""
    if "pixel_values" not in arrays:
        return np.zeros((0, vision.patches_per_frame, vision.patch_dim), np.float32)
    given = pixel_array(arrays, "pixel_values")
    size = (vision.in_channels, vision.image_size, vision.image_size)
    if given.shape[1:] != size:
        raise HippoError(
            f"pixel_values has shape {list(given.shape)}, the vision tower takes frames of "
            f"{list(size)}"
        )
    patch = vision.patch_size
    side = vision.image_size // patch
    split = given.reshape(-1, vision.in_channels, side, patch, side, patch)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(len(given), side * side, vision.patch_dim)


def _groups(ids: np.ndarray, placeholder: int, each: int) -> list[tuple[str, int]]:
    """Kind and frames of every medium of a prompt."""
    visual = np.flatnonzero(ids == placeholder)
    runs = np.split(visual, np.flatnonzero(np.diff(visual) != 1) + 1) if len(visual) else []
    groups: list[tuple[str, int]] = []
    first: np.ndarray | None = None  # the run that the current video began with
    end = 0  # behind the run before
    for run in runs:
        if len(run) % each:
            raise HippoError(
                f"a run of {len(run)} placeholders is no whole number of frames of {each} tokens"
            )
        start = int(run[0])
        if len(run) > each:
            groups += [("image", 1)] * (len(run) // each)
            first = None
        elif first is not None and _numbered(
            ids[: int(first[0])], ids[end:start], groups[-1][1] + 1
        ):
            groups[-1] = ("video", groups[-1][1] + 1)
        else:
            groups.append(("image", 1))
            first = run
        end = int(run[-1]) + 1
    return groups


def _numbered(before: np.ndarray, between: np.ndarray, number: int) -> bool:
    """Whether ``between`` two frames stands an end and the label of frame ``number``, as the text
    ``before`` the video ends in the label of frame 1 (``Frame1: <img>``): the same tokens but for
    the number, whose digits are tokens of their own.

    The end of a frame takes two tokens, ``</img>`` and the newline.
    """
    digits = len(str(number))
    label = between[2:]
    length = len(label) - digits + 1  # of frame 1's label
    if not 3 <= length <= len(before):
        return False
    one = before[len(before) - length :]
    if np.array_equal(one, label):  # frame 1 of the next video
        return False
    return any(
        np.array_equal(one[:at], label[:at]) and np.array_equal(one[at + 1 :], label[at + digits :])
        for at in range(1, length - 1)
    )
