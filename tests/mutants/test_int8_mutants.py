"""Mutants of int8 weights."""

import pytest
from support import checks_int8 as checks
from support.mutation import assert_noticed

from hippo_jax.architectures import int8, vit
from hippo_jax.weights import host

MUTANTS = [
    (
        "one scale for a whole kernel",
        (host.column_scales, "return largest /", "return np.full_like(largest, largest.max()) /"),
        checks.check_tiny_kernels,
    ),
    (
        "values cut off, not rounded",
        (host._quantized, "np.rint(values)", "np.trunc(values)"),
        checks.check_tiny_kernels,
    ),
    (
        "scales of the local shard",
        (host.place, "scale[cut[1:]]", "column_scales(source[cut])"),
        checks.check_split,
    ),
    (
        "a shard takes the first columns' scales",
        (host.place, "scale[cut[1:]]", "scale[..., : cut[-1].stop - cut[-1].start]"),
        checks.check_split,
    ),
    (
        "scale forgotten",
        (int8.int8_matmul, " * scale", " * jnp.ones_like(scale)"),
        checks.check_matmul,
    ),
    (
        "the last columns are those before them",
        (
            int8._by_columns,
            "dynamic_slice_in_dim(kernel, start,",
            "dynamic_slice_in_dim(kernel, 0,",
        ),
        checks.check_matmul,
    ),
    (
        "sums in float16",
        (int8._at_once, ", preferred_element_type=jnp.float32)", ")"),
        checks.check_linear_in_half_precision,
    ),
    (
        "whole kernels converted on a CPU",
        (int8.int8_matmul, '== "cpu"', '== "none"'),
        checks.check_loop_memory,
    ),
]


SLOW = [
    (
        "scale of packed q, k, v forgotten",
        (
            vit.PackedAttention._projected,
            "self.qkv_kernel_scale[...].reshape(-1)",
            "jnp.float32(1)",
        ),
        checks.check_model,
    ),
]


@pytest.mark.parametrize(("name", "change", "check"), MUTANTS, ids=[name for name, *_ in MUTANTS])
def test_mutant_is_noticed(name, change, check) -> None:
    assert_noticed(change, check)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change", "check"), SLOW, ids=[name for name, *_ in SLOW])
def test_mutant_of_a_whole_model_is_noticed(name, change, check) -> None:
    assert_noticed(change, check)
