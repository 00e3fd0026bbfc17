"""Checks of LLaVA-OneVision against transformers, for tests and for mutants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch

from hippo_jax.architectures.llava_onevision import vision
from hippo_jax.architectures.llava_onevision.layout import VisionLayout
from hippo_jax.decoding.pruning import prune
from hippo_jax.scoring import attention_relevance
from support import checks_families, families, tiny_llava
from support.families import FamilyCase
from support.oracles import close
from support.tiny_llava import EVEN, ODD


@functools.cache
def tower_reference(case: FamilyCase) -> dict[str, np.ndarray]:
    """What the oracle's tower, projector and pooling make of three frames, step by step."""
    hf = families.hf_model(case).model
    given = tiny_llava.frames(3, hf.config.vision_config.image_size)
    before, after = [], []

    def watch(module, args, output):
        before.append(args[0].reshape(-1, args[0].shape[-1]).numpy())
        after.append(output.reshape(-1, output.shape[-1]).numpy())

    hooks = [layer.register_forward_hook(watch) for layer in hf.vision_tower.encoder.layers]
    try:
        with torch.no_grad():
            out = hf.get_video_features(torch.from_numpy(given)[None]).pooler_output[0].numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return dict(
        pixels=tiny_llava.patches(given),
        before=np.stack(before),
        after=np.stack(after),
        tokens=out[:-1],
        newline=out[-1],
    )


def check_patch_embedding() -> None:
    """The flattened matmul and the learned places are the reference's convolution and table."""
    for case in (ODD, EVEN):
        expected, tower = tower_reference(case), families.model(case).vision
        close(tower.embed_patches(jnp.asarray(expected["pixels"])), expected["before"][0])


def check_vision_blocks() -> None:
    """Every block by itself, fed what the reference fed it."""
    for case in (ODD, EVEN):
        expected, tower = tower_reference(case), families.model(case).vision
        members = jnp.arange(len(expected["pixels"])).reshape(3, -1)
        run = jax.jit(
            lambda x, tower=tower, members=members: [
                block(x[i], members) for i, block in enumerate(tower.blocks)
            ]
        )
        for index, got in enumerate(run(expected["before"])):
            close(got, expected["after"][index], what=f"vision block {index}")


def check_features() -> None:
    """The features are the last block's, without the norm that SigLIP puts behind it."""
    expected, tower = tower_reference(ODD), families.model(ODD).vision
    close(jax.jit(lambda x: tower.features(x))(expected["pixels"]), expected["after"][-1])


def check_visual_tokens() -> None:
    """Projected and pooled tokens of three frames, and the newline behind the last line of the
    table."""
    for case in (ODD, EVEN):
        expected, tower = tower_reference(case), families.model(case).vision
        count = len(expected["tokens"])
        layout = VisionLayout(
            np.arange(count - 1, dtype=np.int32)
        )  # a last frame not all asked for
        got = jax.jit(lambda x, layout, tower=tower: tower(x, layout))(expected["pixels"], layout)
        assert len(got) == count
        close(got[:-1], expected["tokens"][:-1])
        close(got[-1], expected["newline"], 1e-6)


def check_activations() -> None:
    """Exact GELU in the projector and its tanh form in the tower, where the other would show."""
    ours, theirs = families.model(ODD).vision, families.hf_model(ODD).model
    block, layer = ours.blocks[0], theirs.vision_tower.encoder.layers[0]
    x = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
    with torch.no_grad():
        given = torch.from_numpy(x)
        close(ours.projector(jnp.asarray(x)), theirs.multi_modal_projector(given).numpy(), 1e-5)
        expected = layer.mlp(layer.layer_norm2(given)).numpy()
    close(block.mlp(block.mlp_norm(jnp.asarray(x)), vision.gelu_tanh), expected, 1e-5)


def check_pooling() -> None:
    """Even and odd sides against torch's bilinear resampling, the published 27 among them."""
    rng = np.random.default_rng(0)
    for side in (1, 2, 5, 7, 8, 27):
        x = rng.standard_normal((2, side * side, 3)).astype(np.float32)
        square = torch.from_numpy(x).reshape(2, side, side, 3).permute(0, 3, 1, 2)
        new = tiny_llava.pooled(side)
        expected = torch.nn.functional.interpolate(square, size=[new, new], mode="bilinear")
        expected = expected.permute(0, 2, 3, 1).reshape(2, new * new, 3).numpy()
        close(vision.pool(jnp.asarray(x), side), expected, 1e-5, f"side {side}")


def check_norms() -> None:
    """Epsilons, with inputs so small that they matter."""
    ours, theirs = families.model(ODD), families.hf_model(ODD).model
    layer = theirs.vision_tower.encoder.layers[0]
    pairs = (
        (ours.vision.blocks[0].attention_norm, layer.layer_norm1),
        (ours.vision.blocks[0].mlp_norm, layer.layer_norm2),
        (ours.decoder.norm, theirs.language_model.norm),
    )
    for mine, other in pairs:
        x = np.random.default_rng(0).standard_normal((4, other.weight.shape[0]))
        x = (1e-3 * x).astype(np.float32)
        with torch.no_grad():
            expected = other(torch.from_numpy(x)).numpy()
        close(mine(jnp.asarray(x)), expected, 1e-5)


def check_even_frames() -> None:
    """The whole model on frames that halve evenly."""
    checks_families.check_logits(EVEN)


def check_newlines() -> None:
    """A newline ends each video, in the whole prompt and in the draft's, at its own position,
    however few tokens are kept."""
    rows, batch = ODD.rows(), families.inputs(ODD)
    size = len(batch.table.row)
    kept = np.array([[5], [-1], [40]], np.int32)
    pruned = jax.jit(prune)(batch, kept)
    for b, row in enumerate(rows):
        visual = np.flatnonzero(row.ids == tiny_llava.VIDEO)
        ends = visual[np.append(np.diff(visual) > 1, True)] if len(visual) else visual
        np.testing.assert_array_equal(np.flatnonzero(batch.visual_index[b] == size), ends)
        index = np.asarray(pruned.visual_index)[b, : int(pruned.lengths[b])]
        assert ((index >= 0) & (index < size)).sum() == (kept[b] >= 0).sum()
        at = np.flatnonzero(index == size)
        np.testing.assert_array_equal(np.asarray(pruned.positions)[0, b, at], ends)
        assert (np.asarray(pruned.token_ids)[b, at] == tiny_llava.VIDEO).all()
        np.testing.assert_array_equal(
            batch.positions[:, b, : len(row.ids)], [range(len(row.ids))] * 3
        )
        assert batch.next_position[b] == len(row.ids)


def check_relevance() -> None:
    """Attention from the text behind the last video to each token, from the oracle's own weights:
    over all keys, and over the scored tokens alone, of which the newline is none."""
    rows, hf = ODD.rows(), families.hf_model(ODD)
    before = hf.config._attn_implementation
    hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            layers = hf(**ODD.hf_inputs(rows), output_attentions=True).attentions
    finally:
        hf.set_attn_implementation(before)
    weights = torch.stack(layers).numpy()  # [layers, B, heads, T, T]
    batch, model = families.inputs(ODD), families.model(ODD)
    table = batch.table
    for support in ("all", "visual"):
        got = np.asarray(attention_relevance(model, batch, support=support))
        for b, row in enumerate(rows):
            if not row.media:
                continue
            slots = table.slot[table.valid & (table.row == b)]
            own = weights[:, b, :, -len(row.ids) :, -len(row.ids) :]
            asked = np.arange(np.flatnonzero(row.ids == tiny_llava.VIDEO)[-1] + 1, len(row.ids))
            parts = own[:, :, asked][..., slots]
            if support == "visual":
                parts = parts / parts.sum(-1, keepdims=True)
            close(got[table.valid & (table.row == b)], parts.mean((0, 1, 2)), 1e-5, support)
