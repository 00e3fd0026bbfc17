"""Checks of vision tower and positions against transformers, for tests and for mutants."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

from hippo_jax.architectures.vit import axial_rotary
from support import reference, tiny
from support.oracles import close


def check_patch_embedding() -> None:
    """The flattened matmul is the reference's 3-d convolution."""
    tower, theirs = tiny.model().vision, tiny.hf_model().model.visual
    pixels = tiny.video_row().media[0].pixels[:16]
    with torch.no_grad():
        expected = theirs.patch_embed(torch.from_numpy(pixels)).numpy()
    close(tower.patch_embedding(jnp.asarray(pixels)), expected)


def check_vision_blocks() -> None:
    """Every block by itself, fed what the reference fed it: ragged windows, frames of several
    sizes, videos and images in one list of patches."""
    expected = reference.vision("batch")
    tower, batch = tiny.model().vision, tiny.inputs(tiny.batch_rows())
    patches = len(expected.before[0])

    @jax.jit
    def run(inputs, layout):
        rotary = axial_rotary(tower.config, layout.coordinates)
        outputs = []
        for index, block in enumerate(tower.blocks):
            whole = index in tower.config.full_attention_layers
            members = layout.frames if whole else layout.windows
            place = layout.frame_place if whole else layout.window_place
            outputs.append(block(inputs[index], rotary, members, place))
        return outputs

    x = np.zeros((3, len(batch.vision.pixels), tower.config.hidden_size), np.float32)
    x[:, :patches] = expected.before
    for index, got in enumerate(run(x, batch.vision.layout)):
        close(got[:patches], expected.after[index], what=f"vision block {index}")


def check_visual_tokens() -> None:
    """The whole tower: projected tokens of all media, in order of appearance."""
    expected = reference.vision("batch").tokens
    model = tiny.model()
    got = jax.jit(lambda x: model.encode_video(x))(tiny.inputs(tiny.batch_rows()))
    close(got[: len(expected)], expected)


def check_merger() -> None:
    """Norm, join, exact GELU, projection, where GELU's approximation would show."""
    merger, theirs = tiny.model().vision.merger, tiny.hf_model().model.visual.merger
    x = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    close(merger(jnp.asarray(x)), expected, 1e-5)


def check_norms() -> None:
    """Epsilons, with inputs so small that they matter: 1e-6 in the tower, the config's in text."""
    ours, theirs = tiny.model(), tiny.hf_model().model
    pairs = (
        (ours.vision.blocks[0].attention_norm, theirs.visual.blocks[0].norm1),
        (ours.vision.merger.norm, theirs.visual.merger.ln_q),
        (ours.decoder.layers[0].mlp_norm, theirs.language_model.layers[0].post_attention_layernorm),
        (ours.decoder.norm, theirs.language_model.norm),
    )
    for mine, other in pairs:
        assert isinstance(other, Qwen2_5_VLRMSNorm)
        size = other.weight.shape[0]
        x = 1e-3 * np.random.default_rng(0).standard_normal((4, size)).astype(np.float32)
        with torch.no_grad():
            expected = other(torch.from_numpy(x)).numpy()
        close(mine(jnp.asarray(x)), expected, 1e-5)


def random_row(rng: np.random.Generator):
    """Text with up to three videos and images of random sizes and rates."""
    parts: list = list(rng.integers(1, 180, rng.integers(1, 4)))
    for seed in range(rng.integers(0, 4)):
        kind = "video" if rng.random() < 0.7 else "image"
        t = int(rng.integers(1, 7)) if kind == "video" else 1
        grid = (t, *(int(n) for n in 2 * rng.integers(1, 8, 2)))
        parts.append(tiny.media(kind, grid, float(rng.choice([0.5, 1 / 3, 1.0, 1.7, 3.96])), seed))
        parts += list(rng.integers(1, 180, rng.integers(1, 4)))
    return tiny.prompt(*parts)


def our_positions(row, rule: str):
    """Through the family's function."""
    model = tiny.model()
    config = replace(model.config, text_position_rule=rule)
    media = [(m.kind, m.grid, m.seconds_per_grid) for m in row.media]
    return model.family.rope_positions(config, row.ids, media)


def check_positions_extent() -> None:
    """Rotary positions under ``"extent"`` are those of transformers 5, on fifty random prompts."""
    rng = np.random.default_rng(5)
    rows = [random_row(rng) for _ in range(50)]
    given = tiny.hf_inputs(rows)
    expected, _ = tiny.hf_model().model.get_rope_index(
        given["input_ids"],
        given["mm_token_type_ids"],
        given.get("image_grid_thw"),
        given.get("video_grid_thw"),
        given.get("second_per_grid_ts"),
        given["attention_mask"],
    )
    for b, row in enumerate(rows):
        theirs = expected[:, b, -len(row.ids) :].numpy()
        positions, following = our_positions(row, "extent")
        np.testing.assert_array_equal(positions, theirs)
        assert following == theirs[0, -1] + 1  # decoding goes on from the last token


def check_positions_largest() -> None:
    """Rotary positions under ``"largest"`` are those of transformers 4."""
    rng = np.random.default_rng(6)
    for _ in range(50):
        row = random_row(rng)
        positions, following = our_positions(row, "largest")
        expected, expected_following = reference.largest_positions(row)
        np.testing.assert_array_equal(positions, expected)
        assert following == expected_following
