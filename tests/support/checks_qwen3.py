"""Checks of the decoder's switches against transformers' Qwen3-VL text model."""

import jax
import jax.numpy as jnp
import numpy as np

from support import tiny_qwen3
from support.checks_decoder import causal
from support.oracles import close


def run(after_layer=None, start: int = 0, stop: int | None = None, x=None):
    """Our decoder on the case's prompts, through one fresh program."""
    case, decoder = tiny_qwen3.case(), tiny_qwen3.decoder()

    @jax.jit
    def layers(x, positions):
        return decoder.run_layers(
            x, positions, causal, start=start, stop=stop, after_layer=after_layer
        )[0]

    return layers(jnp.asarray(case["x"] if x is None else x), jnp.asarray(case["positions"]))


def check_qwen3_decoder() -> None:
    """Query and key norms, no biases, a free head dimension, interleaved M-RoPE."""
    close(tiny_qwen3.decoder().norm(run()), tiny_qwen3.case()["plain"])


def check_deepstack() -> None:
    """Extra visual rows after layers 0 and 1 through ``after_layer``."""
    case = tiny_qwen3.case()
    extra = np.zeros((2, *case["x"].shape), np.float32)
    extra[:, case["visual"]] = case["rows"]

    def add(layer: int, x: jax.Array) -> jax.Array:
        return x + extra[layer] if layer < 2 else x

    assert np.abs(case["deep"] - case["plain"]).max() > 0.1
    close(tiny_qwen3.decoder().norm(run(add)), case["deep"])


def check_layer_ranges() -> None:
    """Layers 0..k, then k..L, are layers 0..L."""
    whole = run()
    for middle in (0, 1, 3):
        close(run(start=middle, x=run(stop=middle)), whole, 1e-5, f"cut at {middle}")
