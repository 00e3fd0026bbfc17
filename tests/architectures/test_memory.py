"""Memory of a prefill grows linearly with the video."""

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.qwen2_5_vl.config import VisionConfig
from hippo_jax.architectures.video_lm import abstract_model
from hippo_jax.inputs.model_inputs import Media, Row, assemble

CONFIG = VideoLMConfig(
    family="qwen2_5_vl",
    text=DecoderConfig(
        vocab_size=64,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=128,
        mrope_section=(2, 3, 3),
        max_positions=1 << 20,
    ),
    vision=VisionConfig(
        depth=2,
        hidden_size=32,
        num_heads=2,
        intermediate_size=64,
        out_hidden_size=64,
        patch_size=2,
        window_size=16,
        full_attention_layers=(1,),
    ),
    image_token_id=60,
    video_token_id=61,
    vision_start_token_id=62,
    vision_end_token_id=63,
)


def prefill_bytes(units: int) -> tuple[int, int]:
    """Visual tokens, and bytes of activations, caches and inputs, of a video of 32 x 32 patches."""
    model = abstract_model(CONFIG)
    grid = (units, 32, 32)
    tokens = units * 16 * 16
    pixels = np.zeros((tokens * 4, CONFIG.vision.patch_dim), np.float32)
    row = Row(np.array([1, *[61] * tokens, 2], np.int32), [Media("video", pixels, grid)])
    inputs = jax.eval_shape(lambda x: x, assemble(model, [row]))
    compiled = jax.jit(lambda m, i: m.prefill(i, 32)).lower(model, inputs).compile()
    memory = compiled.memory_analysis()
    given = sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(inputs))
    return tokens, memory.temp_size_in_bytes + memory.output_size_in_bytes + given


def test_twice_the_video_takes_twice_the_memory():
    few, small = prefill_bytes(32)
    many, large = prefill_bytes(64)
    assert (few, many) == (8192, 16384)
    assert large <= 2.2 * small
    # A single square of 16k x 16k scores of one head would be above this.
    assert large < 4 * many**2
