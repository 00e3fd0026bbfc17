"""Models with random weights in the shape of any config, and prompts to measure them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.parameters import M, declared, with_values
from hippo_jax.architectures.published import published_config, published_names
from hippo_jax.architectures.qwen2_5_vl.config import FAMILY, VisionConfig
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media, Row
from hippo_jax.placement.call_sizes import Call, read_call

ORDINARY = 30_000  # ids below are no special tokens in any shape
TEXT_TOKENS = 40


def small() -> VideoLMConfig:
    """About 130 million parameters: 12 layers of 768, 12 query and 2 key/value heads."""
    text = DecoderConfig(
        vocab_size=32_000,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        num_kv_heads=2,
        head_dim=64,
        intermediate_size=2048,
        mrope_section=(8, 12, 12),
    )
    vision = VisionConfig(
        depth=4,
        hidden_size=384,
        num_heads=6,
        intermediate_size=1024,
        out_hidden_size=768,
        full_attention_layers=(3,),
    )
    return VideoLMConfig(
        family=FAMILY,
        text=text,
        vision=vision,
        image_token_id=31_989,
        video_token_id=31_990,
        vision_start_token_id=31_991,
        vision_end_token_id=31_992,
        tokens_per_second=2.0,
        # transformers 5 computes positions so; the peer must do the same work on the same numbers
        text_position_rule="extent",
    )


def small_draft() -> VideoLMConfig:
    """A draft for ``small``: 2 layers of 384, about 30 million parameters, most of them in the
    embedding and the head."""
    whole = small()
    text = replace(whole.text, hidden_size=384, num_layers=2, num_heads=6, intermediate_size=1024)
    vision = replace(
        whole.vision,
        depth=2,
        hidden_size=192,
        num_heads=3,
        intermediate_size=512,
        out_hidden_size=384,
        full_attention_layers=(1,),
    )
    return replace(whole, text=text, vision=vision)


OWN: Mapping[str, Callable[[], VideoLMConfig]] = {"130m": small, "30m": small_draft}


def shape_config(name: str) -> VideoLMConfig:
    """The config of a shape of our own (``130m``, ``30m``) or of a published size.

    Raises:
        HippoError: no shape has this name.
    """
    if name in OWN:
        return OWN[name]()
    if name not in published_names():
        known = ", ".join((*OWN, *published_names()))
        raise HippoError(f"no shape is called {name!r}; there are: {known}")
    return published_config(name)


def draft_shape(name: str) -> str:
    """The draft that goes with a shape where none is named: the smallest size of the family.

    Raises:
        HippoError: the shape is the smallest itself.
    """
    names = tuple(OWN) if name in OWN else published_names()
    family = shape_config(name).family
    # Published names go by family, small ones first; of our own the draft is the last.
    own = [other for other in names if shape_config(other).family == family]
    smallest = own[-1] if name in OWN else own[0]
    if smallest == name:
        raise HippoError(f"{name} is the smallest of its family; name its draft too")
    return smallest


def random_video_lm(
    config: VideoLMConfig,
    seed: int = 0,
    dtype: Any = jnp.float32,
    make: Callable[..., VideoLM] = VideoLM,
) -> Any:
    """Random weights on the default device, made there one by one.

    Matrices are normal with a deviation of 0.02, biases 0, scales of norms 1. ``make`` is the class
    or what makes it, called as ``VideoLM``; its weights of whole numbers are 0.
    """
    empty = nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0)))
    return random_weights(empty, seed, dtype)


def random_weights(empty: M, seed: int, dtype: Any) -> M:
    """``empty`` with random values for its shapes."""
    keys = jax.random.split(jax.random.key(seed), len(declared(empty)))
    found = {}
    for (path, item), key in zip(sorted(declared(empty).items()), keys, strict=True):
        if jnp.issubdtype(item.dtype, jnp.integer):
            found[path] = jnp.zeros(item.shape, item.dtype)
        elif len(item.shape) > 1:
            found[path] = _normal(key, item.shape, jnp.dtype(dtype))
        else:
            found[path] = jnp.full(item.shape, 0.0 if path.endswith("bias") else 1.0, dtype)
    return with_values(empty, found)


@partial(jax.jit, static_argnums=(1, 2))
def _normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return (0.02 * jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def random_row(config: VideoLMConfig, frames: int, size: tuple[int, int], seed: int = 0) -> Row:
    """A prompt of random text around one video of random pixels.

    Args:
        frames: of the video.
        size: height and width of a frame, for families that keep the aspect.

    Raises:
        HippoError: more tokens than the model allows.
    """
    rng, vision = np.random.default_rng(seed), config.vision
    (grid,) = read_call(config, Call(frames=frames, size=size, text_tokens=TEXT_TOKENS)).grids
    count = grid[0] * grid[1] * grid[2]
    pixels = rng.standard_normal((count, vision.patch_dim), np.float32)
    media = Media("video", pixels, grid, 1.0)
    tokens = family_of(config.family).media_tokens(config, media).count
    before, after = rng.integers(0, ORDINARY, (2, TEXT_TOKENS // 2))
    marks = [config.vision_start_token_id, config.vision_end_token_id]
    start, end = ([] if mark is None else [mark] for mark in marks)
    ids = np.concatenate([before, start, np.full(tokens, config.video_token_id), end, after])
    return Row(ids.astype(np.int32), [media])
