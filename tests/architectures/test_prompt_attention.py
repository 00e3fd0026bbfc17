"""Prompts read by a fused kernel: the same function, and one line where it cannot be had.

No GPU is needed: the call that cuDNN gets is also run through XLA, and is lowered for CUDA.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from hippo_jax.architectures import prompt_attention as module
from hippo_jax.architectures.platform import _PLATFORM
from hippo_jax.architectures.prompt_attention import prompt_attention
from hippo_jax.benchmark.cases import pair_case
from hippo_jax.errors import HippoError
from hippo_jax.placement.pair import load_pair


def random(*shape: int, dtype=jnp.bfloat16) -> jax.Array:
    return jax.random.normal(jax.random.key(len(shape) + shape[2]), shape, dtype)


@pytest.fixture
def through_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMPLEMENTATION", "xla")


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch):
    """Trace for a GPU with cuDNN, which nothing is run on."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    token = _PLATFORM.set("gpu")
    yield
    _PLATFORM.reset(token)


@pytest.mark.parametrize("length", [1, 7, 300, 1031])
def test_the_fused_call_is_the_same_attention(through_xla: None, length: int) -> None:
    q, k, v = random(2, length, 6, 16), random(2, length, 2, 16), random(2, length, 2, 16)
    fused = prompt_attention(q, k, v, "cudnn")
    blocks = prompt_attention(q, k, v, "blocks")
    exact = prompt_attention(*(x.astype(jnp.float32) for x in (q, k, v)), "blocks")
    assert fused.shape == blocks.shape and fused.dtype == jnp.bfloat16
    for found in (fused, blocks):  # both are off by the rounding of 16 bits alone
        np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.03)


def test_a_model_reads_its_prompt_by_its_kernel(
    through_xla: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layer but the last, which answers for one row; and a model that is told of another
    kernel is compiled again."""
    model = load_pair("demo", dtype="bfloat16").target
    (inputs, *_) = pair_case("demo", 2).prompts()
    asked: list[bool] = []
    real = jax.nn.dot_product_attention

    def watched(*arguments, **keywords):
        asked.append(keywords["is_causal"])
        return real(*arguments, **keywords)

    monkeypatch.setattr(jax.nn, "dot_product_attention", watched)
    run = jax.jit(lambda model, inputs: model.prefill(inputs, 2)[0])
    blocks = run(model, inputs)
    assert not asked
    model.attention = "cudnn"
    fused = run(model, inputs)
    assert asked == [True] * (model.config.text.num_layers - 1)
    assert np.abs(fused - blocks).max() < 0.25
    assert np.array_equal(fused.argmax(-1), blocks.argmax(-1))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("length", [1611, 12_800])
def test_cudnn_is_what_a_gpu_gets(on_cuda: None, length: int, dtype) -> None:
    def shape(heads: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, length, heads, 128), dtype)

    program = jax.jit(lambda q, k, v: prompt_attention(q, k, v, "cudnn"))
    lowered = program.trace(shape(40), shape(8), shape(8)).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert "__cudnn$fmhaSoftmax" in text and "CAUSAL" in text
    assert f"{length}x{length}" not in text  # no square of scores


def test_what_cudnn_cannot_do_is_one_line(on_cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k = random(1, 16, 4, 16), random(1, 16, 2, 16)
    with pytest.raises(HippoError, match="bfloat16 or float16, the model is in float32"):
        prompt_attention(q.astype(jnp.float32), k, k, "cudnn")
    with pytest.raises(HippoError, match=r"cuDNN refuses this attention: .*; use 'blocks'"):
        odd = random(1, 16, 4, 13), random(1, 16, 2, 13)
        prompt_attention(odd[0], odd[1], odd[1], "cudnn")
    with pytest.raises(HippoError, match="attention 'flash': use one of blocks, cudnn"):
        prompt_attention(q, k, k, "flash")  # type: ignore[arg-type]
    _PLATFORM.set("cpu")
    with pytest.raises(HippoError, match="needs an NVIDIA GPU, this is a cpu"):
        prompt_attention(q, k, k, "cudnn")
