"""Checks of InternVL's tower against transformers, part by part, for tests and for mutants."""

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch

from hippo_jax.architectures.internvl import layout, vision
from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.tensor_parallel import on_devices
from hippo_jax.weights.load import place_model
from support import tiny_internvl as tiny
from support.oracles import close

TOWERS = tuple(tiny.TOWERS)


@functools.cache
def reference(tower: str, frames: int = 3) -> SimpleNamespace:
    """What transformers' tower makes of a few frames: embeddings, every layer, tokens."""
    hf = tiny.hf_model(tower).model
    seen: dict[str, list] = {"before": [], "after": []}

    def watch(module, args, output):
        seen["before"].append(args[0].numpy())
        seen["after"].append((output[0] if isinstance(output, tuple) else output).numpy())

    hooks = [layer.register_forward_hook(watch) for layer in hf.vision_tower.encoder.layer]
    try:
        with torch.no_grad():
            pixels = torch.from_numpy(tiny.images(frames))
            tokens = hf.get_image_features(
                pixels, vision_feature_layer=-1, vision_feature_select_strategy="default"
            ).pooler_output.numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return SimpleNamespace(tokens=tokens.reshape(frames * tiny.TOKENS, -1), **seen)


def check_embeddings() -> None:
    """Convolution as a matmul, class token in front, a position for each."""
    for tower in TOWERS:
        ours = tiny.model(tower).vision
        given = jnp.asarray(tiny.patches(tiny.images(3))).reshape(3, 36, -1)
        close(ours.embed(given), reference(tower).before[0], 1e-5, tower)


def check_blocks() -> None:
    """Every layer by itself, fed what the reference fed it."""
    for tower in TOWERS:
        expected = reference(tower)
        for index, block in enumerate(tiny.model(tower).vision.blocks):
            got = jax.jit(lambda x, block=block: block(x))(expected.before[index])
            close(got, expected.after[index], 1e-5, f"{tower}, layer {index}")


def check_norms() -> None:
    """Epsilons, with inputs so small that they matter: of the blocks, of queries, of the
    projector."""
    rng = np.random.default_rng(0)
    for tower in TOWERS:
        ours, theirs = tiny.model(tower).vision, tiny.hf_model(tower).model
        layer = theirs.vision_tower.encoder.layer[1]
        pairs = [
            (ours.blocks[1].attention_norm, layer.layernorm_before),
            (ours.blocks[1].mlp_norm, layer.layernorm_after),
            (ours.projector.norm, theirs.multi_modal_projector.layer_norm),
        ]
        if tower == "6b":
            pairs.append((ours.blocks[1].attention.query_norm, layer.attention.q_norm))
            pairs.append((ours.blocks[1].attention.key_norm, layer.attention.k_norm))
        for mine, other in pairs:
            x = 2e-3 * rng.standard_normal((4, other.weight.shape[0])).astype(np.float32)
            with torch.no_grad():
                expected = other(torch.from_numpy(x)).numpy()
            close(mine(jnp.asarray(x)), expected, 1e-5)


def check_pixel_shuffle() -> None:
    """The order of features and of tokens, for blocks of 2 x 2 and 4 x 4 patches."""
    x = np.random.default_rng(1).standard_normal((2, 12, 12, 8)).astype(np.float32)
    theirs = tiny.hf_model().model.pixel_shuffle
    for merge in (2, 4):
        expected = theirs(torch.from_numpy(x), scale_factor=1 / merge).numpy()
        np.testing.assert_array_equal(vision.pixel_shuffle(jnp.asarray(x), merge), expected)


def check_projector() -> None:
    """Norm, exact GELU, projection, where GELU's approximation would show."""
    ours, theirs = tiny.model().vision.projector, tiny.hf_model().model.multi_modal_projector
    x = np.random.default_rng(2).standard_normal((16, 128)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    close(ours(jnp.asarray(x)), expected, 1e-5)


def check_tower() -> None:
    """The whole tower, for frames that go through together and in two chunks with a spare one;
    rows of padding that are no whole frame do not matter."""
    rows = tiny.patches(tiny.images(3))
    pixels = jnp.asarray(np.pad(rows, ((0, 20), (0, 0))))
    for tower, together in (("300m", 8), ("6b", 2)):
        expected, own = reference(tower).tokens, tiny.model(tower).vision
        with mock.patch.object(layout, "FRAMES_AT_ONCE", together):
            got = jax.jit(lambda x, own=own: own(x, ()))(pixels)
        assert got.shape == (len(pixels) // 4, 64)
        close(got[: len(expected)], expected, 1e-4, f"{tower}, {together} at once")


def labelled(numbers: Sequence[int], before: Sequence[int] = (1, 2)) -> list[int]:
    """One placeholder a frame, each behind a label whose digits are tokens of their own."""
    ids = list(before)
    for number in numbers:
        digits = [tiny.FRAME + 1 + int(digit) for digit in str(number)]
        ids += [tiny.FRAME, *digits, 81, tiny.START, tiny.IMAGE, tiny.END, tiny.NEWLINE]
    return ids


def check_groups() -> None:
    """Videos of more than nine frames, one behind the other, between images and text."""

    def groups(*ids: int) -> list[tuple[str, int]]:
        return layout._groups(np.array(ids), tiny.IMAGE, 1)

    image = [tiny.START, tiny.IMAGE, tiny.END, tiny.NEWLINE]
    twelve = labelled(range(1, 13))
    assert groups(*twelve, 5) == [("video", 12)]
    assert groups(*twelve, *labelled([1, 2, 3], ()), 5) == [("video", 12), ("video", 3)]
    assert groups(*labelled([1, 2]), *labelled([1], ())) == [("video", 2), ("image", 1)]
    assert groups(3, *image, *image, *labelled([1, 2], ())) == [
        ("image", 1),
        ("image", 1),
        ("video", 2),
    ]
    assert groups(*labelled([1, 2]), *image, 7) == [("video", 2), ("image", 1)]
    assert groups(3, *image[:1], *[tiny.IMAGE] * 3, *image[2:]) == [("image", 1)] * 3  # tiles
    assert groups(3, 4) == []


def check_whole_heads() -> None:
    """The 6B tower on two devices: norms of queries and keys span its heads, which are whole."""
    own = tiny.model("6b")
    mesh = jax.make_mesh((2,), ("tp",), devices=jax.devices()[:2])

    @jax.jit
    def encode(model, pixels):
        return on_devices(lambda m, x: m.vision(x, ()), (model,), pixels)

    pixels = jnp.asarray(tiny.patches(tiny.images(3)))
    got = encode(place_model(own, Home.of(mesh)), pixels)
    close(np.asarray(got), reference("6b").tokens, 1e-4)
