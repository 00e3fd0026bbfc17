"""A tiny pair whose forwards take a known time: asleep, or keeping one core busy.

What a schedule hides of one role's work behind the other's can be seen only if the two do not
fight for the same cores. A forward that sleeps takes none; a chain of scalars, each made of the one
before, takes one and cannot be split. Everything else of a round is what real pairs run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.parameters import declared, with_values
from hippo_jax.architectures.qwen2_5_vl.config import FAMILY, VisionConfig
from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.inputs.model_inputs import Media, ModelInputs, Row, assemble
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.placement import Placement
from hippo_jax.weights.load import place_model

Kind = Literal["latency", "xla"]
KINDS: dict[Kind, str] = {"latency": "injected latency", "xla": "single-core XLA steps"}
LINKS = 256  # scalars of the chain in one turn of its loop
PROBE = 20_000  # turns that ``turns_a_second`` times

CONFIG = VideoLMConfig(
    family=FAMILY,
    text=DecoderConfig(
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        intermediate_size=32,
        mrope_section=(2, 1, 1),
    ),
    vision=VisionConfig(
        depth=1,
        hidden_size=16,
        num_heads=2,
        intermediate_size=16,
        out_hidden_size=32,
        full_attention_layers=(0,),
    ),
    image_token_id=60,
    video_token_id=61,
    vision_start_token_id=62,
    vision_end_token_id=63,
)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Work:
    """What a forward does besides its own.

    Attributes:
        kind: ``"latency"`` sleeps on the host, ``"xla"`` computes on one core.
        amount: seconds asleep, or turns of a loop.
    """

    kind: Kind
    amount: float

    def __call__(self, seed: jax.Array) -> jax.Array:
        """Of a number (float32, no dimensions) another one, from 0 to 1."""
        if self.kind == "latency":

            def sleep(_: Any) -> np.ndarray:
                time.sleep(self.amount)
                return np.zeros((), np.float32)

            return jax.pure_callback(sleep, jax.ShapeDtypeStruct((), jnp.float32), seed)
        return _chain(seed, jnp.int32(self.amount))


def _chain(seed: jax.Array, turns: jax.Array) -> jax.Array:
    """The logistic map, which stays from 0 to 1: each number needs the one before."""

    def turn(_: Any, x: jax.Array) -> jax.Array:
        for _ in range(LINKS):
            x = 3.7 * x * (1 - x)
        return x

    return jax.lax.fori_loop(0, turns, turn, jax.nn.sigmoid(seed))


class InjectedVideoLM(VideoLM):
    """A video-LLM whose every forward over new tokens does some work more. Its logits wait for the
    work and are what they were."""

    def __init__(self, config: VideoLMConfig, work: Work, *, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs=rngs)
        self.work = work

    def forward_block(self, *arguments: Any, **keywords: Any) -> tuple[jax.Array, Any]:
        """As ``VideoLM.forward_block``."""
        logits, blocks = super().forward_block(*arguments, **keywords)
        done = self.work(jnp.max(logits))
        # Never above 1, which no compiler knows: so it can neither drop the work nor move it.
        return logits + jnp.where(done > 1, 1.0, 0.0), blocks


def turns_a_second() -> float:
    """How many turns of its loop the chain makes in a second, on one core of this machine."""
    program = jax.jit(_chain).lower(jnp.float32(0), jnp.int32(PROBE)).compile()
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        jax.block_until_ready(program(jnp.float32(0), jnp.int32(PROBE)))
        taken.append(time.perf_counter() - begin)
    return PROBE / min(taken)


def make_works(kind: Kind, target_s: float, draft_s: float, gamma: int) -> tuple[Work, Work]:
    """Work of a target forward and of a draft forward, so that a chunk of ``gamma`` draft tokens
    takes ``draft_s`` seconds."""
    rate = 1.0 if kind == "latency" else turns_a_second()
    amounts = (target_s * rate, draft_s / gamma * rate)
    first, second = (a if kind == "latency" else float(max(1, round(a))) for a in amounts)
    return Work(kind, first), Work(kind, second)


def injected_pair(target: Work, draft: Work, placement: Placement) -> ModelPair:
    """Target and draft of the same random weights, so that every draft token is accepted and each
    round does the same."""

    def model(work: Work, home: Home | None) -> VideoLM:
        empty = nnx.eval_shape(lambda: InjectedVideoLM(CONFIG, work, rngs=nnx.Rngs(0)))
        rng = np.random.default_rng(0)
        weights = {
            path: rng.standard_normal(item.shape, np.float32) / np.float32(np.sqrt(item.shape[0]))
            for path, item in sorted(declared(empty).items())
        }
        return place_model(with_values(empty, weights), home)

    homes = placement.homes()
    return ModelPair(model(target, homes[0]), model(draft, homes[1]), placement)


def tiny_prompt(model: VideoLM) -> ModelInputs:
    """Two frames of nothing, as four visual tokens, and a few words."""
    config, grid = model.config, (1, 4, 4)
    pixels = np.zeros((16, config.vision.patch_dim), np.float32)
    video = [config.vision_start_token_id, *[config.video_token_id] * 4, config.vision_end_token_id]
    ids = np.array([*video, 1, 2, 3], np.int32)
    return assemble(model, [Row(ids, [Media("video", pixels, grid, 1.0)])])
