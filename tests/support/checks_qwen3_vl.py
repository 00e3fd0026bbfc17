"""Checks of Qwen3-VL's tower and positions against transformers, for tests and for mutants."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import torch

from hippo_jax.architectures.vit import axial_rotary
from support import tiny_qwen3_vl as tiny
from support.oracles import close

CASES = {"video": lambda: (tiny.video_row(),), "batch": tiny.batch_rows}


@functools.cache
def vision(case: str = "batch", size: str = "target") -> SimpleNamespace:
    """What transformers' tower makes of all media in order of appearance: tokens, the features for
    deepstack, and each block's input and output."""
    tower = tiny.hf_model(size).model.visual
    everything = [item for row in CASES[case]() for item in row.media]
    before, after = [], []

    def watch(module, args, output):
        before.append(args[0].numpy())
        after.append(output.numpy())

    hooks = [block.register_forward_hook(watch) for block in tower.blocks]
    try:
        with torch.no_grad():
            pixels = torch.from_numpy(np.concatenate([item.pixels for item in everything]))
            grids = torch.tensor([item.grid for item in everything])
            out = tower(pixels, grid_thw=grids, return_dict=True)
    finally:
        for hook in hooks:
            hook.remove()
    tokens = np.concatenate([out.pooler_output, *out.deepstack_features], axis=1)
    return SimpleNamespace(tokens=tokens, before=before, after=after)


def check_tower_input() -> None:
    """Patch embedding with its bias, and positions read between the places of the table."""
    expected = vision().before[0]
    tower, own = tiny.model().vision, tiny.inputs(tiny.batch_rows()).vision

    @jax.jit
    def run(pixels, layout):
        return tower.patch_embedding(pixels) + tower.positions(layout.coordinates, layout.sizes)

    close(run(own.pixels, own.layout)[: len(expected)], expected, 1e-5)


def check_vision_blocks() -> None:
    """Every block by itself, fed what the reference fed it."""
    expected = vision()
    tower, own = tiny.model().vision, tiny.inputs(tiny.batch_rows()).vision

    @jax.jit
    def run(inputs, layout):
        rotary = axial_rotary(tower.config, layout.coordinates)
        return [
            block(x, rotary, layout.frames, layout.frame_place)
            for block, x in zip(tower.blocks, inputs, strict=True)
        ]

    patches = len(expected.before[0])
    x = np.zeros((len(tower.blocks), len(own.pixels), tower.config.hidden_size), np.float32)
    x[:, :patches] = expected.before
    for index, got in enumerate(run(x, own.layout)):
        close(got[:patches], expected.after[index], what=f"vision block {index}")


def check_tower(size: str) -> None:
    expected = vision("batch", size).tokens
    own = tiny.inputs(tiny.batch_rows()).vision
    tower = tiny.model(size).vision
    got = jax.jit(lambda pixels, layout: tower(pixels, layout))(own.pixels, own.layout)
    assert got.shape[1] == expected.shape[1]
    close(got[: len(expected)], expected)


def check_features() -> None:
    """The whole tower: tokens and, behind them, the features for the decoder's first layers."""
    check_tower("target")


def check_other_tower() -> None:
    """A tower of another depth on the same pixels and index arrays."""
    check_tower("draft")


def check_mergers() -> None:
    """Norm before or behind the joining of patches, exact GELU, where its approximation shows."""
    ours, theirs = tiny.model().vision, tiny.hf_model().model.visual
    x = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
    pairs = [(ours.merger, theirs.merger)]
    pairs += zip(ours.deepstack_mergers, theirs.deepstack_merger_list, strict=True)
    for mine, other in pairs:
        with torch.no_grad():
            expected = other(torch.from_numpy(x)).numpy()
        close(mine(jnp.asarray(x)), expected, 1e-5)


def check_mlp() -> None:
    """GELU by its tanh approximation, where the exact one would show."""
    x = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
    with torch.no_grad():
        expected = tiny.hf_model().model.visual.blocks[0].mlp(torch.from_numpy(x)).numpy()
    block = tiny.model().vision.blocks[0]
    close(block.mlp(jnp.asarray(x), block.activation), expected, 1e-5)


def check_norms() -> None:
    """Epsilons, with inputs so small that they matter: 1e-6 in the tower, the config's in text."""
    ours, theirs = tiny.model(), tiny.hf_model().model
    pairs = (
        (ours.vision.blocks[0].attention_norm, theirs.visual.blocks[0].norm1),
        (ours.vision.blocks[0].mlp_norm, theirs.visual.blocks[0].norm2),
        (ours.vision.merger.norm, theirs.visual.merger.norm),
        (ours.vision.deepstack_mergers[1].norm, theirs.visual.deepstack_merger_list[1].norm),
        (ours.decoder.norm, theirs.language_model.norm),
    )
    for mine, other in pairs:
        x = 1e-3 * np.random.default_rng(0).standard_normal((4, other.weight.shape[0]))
        with torch.no_grad():
            expected = other(torch.from_numpy(x.astype(np.float32))).numpy()
        close(mine(jnp.asarray(x, jnp.float32)), expected, 1e-5)


def random_row(rng: np.random.Generator):
    """Text with up to three videos and images of random sizes."""
    parts: list = list(rng.integers(1, 90, rng.integers(1, 4)))
    for seed in range(rng.integers(0, 4)):
        kind = "video" if rng.random() < 0.7 else "image"
        t = int(rng.integers(1, 5)) if kind == "video" else 1
        parts.append(tiny.media(kind, (t, *(int(n) for n in 2 * rng.integers(1, 6, 2))), seed))
        parts += list(rng.integers(1, 90, rng.integers(1, 4)))
    return tiny.prompt(*parts)


def check_positions() -> None:
    """Rotary positions are those of transformers, on fifty random prompts."""
    rng = np.random.default_rng(5)
    rows = [random_row(rng) for _ in range(50)]
    given = tiny.hf_inputs(rows)
    expected, _ = tiny.hf_model().model.get_rope_index(
        given["input_ids"],
        given["mm_token_type_ids"],
        given.get("image_grid_thw"),
        given.get("video_grid_thw"),
        given["attention_mask"],
    )
    family, config = tiny.model().family, tiny.model().config
    for b, row in enumerate(rows):
        theirs = expected[:, b, -len(row.ids) :].numpy()
        media = [(m.kind, m.grid, m.seconds_per_grid) for m in row.media]
        positions, following = family.rope_positions(config, row.ids, media)
        np.testing.assert_array_equal(positions, theirs)
        assert following == theirs[0, -1] + 1  # decoding goes on from the last token
