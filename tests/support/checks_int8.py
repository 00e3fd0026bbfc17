"""Checks of int8 weights, for tests and for mutants."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import hippo_jax as hj
from hippo_jax.architectures import int8
from hippo_jax.architectures.int8 import scale_path, with_int8_kernels
from hippo_jax.architectures.linear import Linear
from hippo_jax.architectures.parameters import declared, values, with_values
from hippo_jax.architectures.sharding import Home, specs_at
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.decoding.arguments import make_settings
from hippo_jax.decoding.generate import decode_loop, prefill_state
from hippo_jax.weights.host import place_weight
from support import pairs
from support.oracles import close


def int8_model(model: VideoLM, home: Home | None = None) -> VideoLM:
    """``model`` as ``load_model(quantize="int8")`` makes it of the same weights."""
    small = with_int8_kernels(abstract_model(model.config))
    specs, weights = specs_at(model.config, declared(small), home), {}
    for path, value in values(model).items():
        placed, finite = place_weight(path, np.asarray(value), np.dtype("float32"), specs, home)
        assert finite
        weights |= placed
    found = with_values(small, weights)
    found.home = home
    return found


def dequantized(small: VideoLM) -> VideoLM:
    """The float model that an int8 one stands for."""
    stored, plain = values(small), abstract_model(small.config)
    return with_values(
        plain,
        {
            path: stored[path].astype(jnp.float32) * stored[scale_path(path)]
            if scale_path(path) in stored
            else stored[path]
            for path in declared(plain)
        },
    )


def home(devices: int) -> Home:
    return Home.of(jax.make_mesh((devices,), ("tp",), devices=jax.devices()[:devices]))


@functools.cache
def wide() -> VideoLM:
    """Heads and hidden units for four devices; columns of very different size in every kernel."""
    own = pairs.config()
    text = dataclasses.replace(own.text, num_heads=4, num_kv_heads=4)
    config = dataclasses.replace(own, text=text)
    rng = np.random.default_rng(8)
    weights = pairs.weights(3, config)
    for path, x in weights.items():
        if x.ndim > 1 and "decoder.layers" in path:
            weights[path] = x * rng.uniform(0.2, 2, x.shape[1:]).astype(np.float32)
    return pairs.build(weights, config)


@functools.cache
def prompts() -> hj.ModelInputs:
    return pairs.prompts(np.random.default_rng(5), 3)


def check_kernels(model: VideoLM, small: VideoLM) -> set[str]:
    """Every kernel within half a step of what it was, the other weights as they were. Returns the
    paths of the matrices that were left alone."""
    before, after = values(model), values(small)
    matrices = set()
    for path, value in before.items():
        value, scale = np.asarray(value, np.float32), after.get(scale_path(path))
        if scale is None:
            np.testing.assert_array_equal(np.asarray(after[path]), value)
            if value.ndim > 1:
                matrices.add(path)
            continue
        kernel, scale = np.asarray(after[path]), np.asarray(scale)
        assert kernel.dtype == np.int8 and scale.dtype == np.float32
        assert kernel.shape == value.shape and scale.shape == value.shape[1:]
        np.testing.assert_allclose(scale, np.abs(value).max(axis=0) / 127, rtol=1e-6)
        error = np.abs(kernel.astype(np.float32) * scale - value)
        assert (error <= 0.5001 * scale).all(), path
        assert (np.abs(kernel).max(axis=0) == 127).all()
    scales = {path for path in after if path.endswith("_scale")}
    assert set(after) == set(before) | scales and scales
    return matrices


def check_tiny_kernels() -> None:
    check_kernels(wide(), int8_model(wide()))


def check_matmul() -> None:
    """``x @ (kernel * scale)``, at once and by columns, of which the last tile overlaps."""
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (24, 200)).astype(np.int8)
    scale = rng.uniform(0.01, 1, 200).astype(np.float32)
    x = rng.standard_normal((2, 3, 24)).astype(np.float32)
    for platform in "cpu", "gpu":
        for outputs in 200, 129, 2:
            with (
                mock.patch.object(int8, "platform", lambda name=platform: name),
                mock.patch.object(int8, "CPU_TILE", 1),
            ):
                k, s = kernel[:, :outputs], scale[:outputs]
                got = jax.jit(lambda *x: int8.int8_matmul(*x))(x, k, s)
            assert got.dtype == jnp.float32
            close(got, x @ (k.astype(np.float32) * s), 1e-6, f"{platform}, {outputs}")


def check_linear_in_half_precision() -> None:
    """Sums of int8 values beyond float16 do not overflow; the result is of ``x``'s dtype."""
    layer = with_int8_kernels(Linear(64, 4, (None, None), bias=False, rngs=nnx.Rngs(0)))
    kernel, scale = np.full((64, 4), 127, np.int8), np.full(4, 1e-3, np.float32)
    layer.kernel.set_value(jnp.asarray(kernel))
    layer.kernel_scale.set_value(jnp.asarray(scale))
    got = jax.jit(lambda layer, x: layer(x))(layer, jnp.full((1, 64), 10, jnp.float16))
    assert got.dtype == jnp.float16
    np.testing.assert_allclose(np.asarray(got, np.float32), 64 * 127 * 10 * 1e-3, rtol=1e-3)


def check_model() -> None:
    """Teacher-forced logits are those of the dequantized weights."""
    small = int8_model(wide())
    close(small(prompts()), dequantized(small)(prompts()), 2e-5)


def check_split() -> None:
    """Split over 2 and 4 devices: the same integers, and scales where their outputs are."""
    whole = values(int8_model(wide()))
    for devices in 2, 4:
        split, rows = values(int8_model(wide(), home(devices))), 0
        for path, array in split.items():
            np.testing.assert_array_equal(np.asarray(array), np.asarray(whole[path]), err_msg=path)
            spec = tuple(array.sharding.spec)
            rows += array.dtype == np.int8 and spec[0] == "tp"
            if path.endswith("_scale"):
                assert spec == tuple(split[path.removesuffix("_scale")].sharding.spec)[1:], path
        assert rows >= 4, "no kernel is split by rows"


def check_split_model(devices: int = 4) -> None:
    """Their logits."""
    expected = int8_model(wide())(prompts())
    close(int8_model(wide(), home(devices))(prompts()), expected, 2e-5)


def check_loop_memory() -> None:
    """A program that decodes holds no kernel in full precision: its temporary memory is below one
    of twelve."""
    own = pairs.config(hidden=256)
    text = dataclasses.replace(own.text, num_layers=4, intermediate_size=2048)
    config = dataclasses.replace(own, text=text)
    model, given = with_int8_kernels(abstract_model(config)), prompts()
    settings, limit = make_settings(model, given, 9, None, None, None, ())
    with mock.patch.object(int8, "CPU_TILE", 1 << 14):
        state = jax.eval_shape(
            lambda m, i: prefill_state(m, i, limit, None, settings), model, given
        )
        step = jax.jit(lambda m, s: decode_loop(m, s, given.next_position, limit, None, settings))
        memory = step.lower(model, state).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 256 * 2048
