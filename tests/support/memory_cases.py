"""Programs of models that exist as shapes only, compiled for what the compiler says of memory.

Sizes are chosen so that activations are the larger part of what a program takes.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hippo_jax as hj
from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.internvl import config as _internvl
from hippo_jax.architectures.llava_onevision import config as _llava
from hippo_jax.architectures.parameters import declared, with_values
from hippo_jax.architectures.qwen2_5_vl import config as _qwen2_5
from hippo_jax.architectures.qwen2_vl import config as _qwen2
from hippo_jax.architectures.qwen3_vl import config as _qwen3
from hippo_jax.architectures.sharding import Home, specs_at
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.decoding.arguments import Settings
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import prefill_state
from hippo_jax.inputs.model_inputs import Media, ModelInputs, Row, assemble
from hippo_jax.placement.call_sizes import Call
from hippo_jax.scheduling import sides
from hippo_jax.scheduling.flat import FlatModel
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.programs import advance, start

# Operations are ordered for the least memory, as by compilers of accelerators, instead of for
# speed; and matmuls are not joined with their neighbours into calls of a CPU library. Machine code
# is made without effort: it changes no buffer, and nobody runs it.
OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_cpu_experimental_ynn_fusion_type": "",
}
SIDE = 16  # patches of a frame's side, 27 in LLaVA-OneVision
PATCH = 4  # pixels of a patch's side
TEXT = 32  # tokens of text
CAPACITY = 32
GAMMA = 4
SCALAR = jax.ShapeDtypeStruct((), jnp.int32)


def text(hidden: int, heads: int, inner: int, *, mrope: bool) -> DecoderConfig:
    """Three layers, two key heads."""
    return DecoderConfig(
        vocab_size=512,
        hidden_size=hidden,
        num_layers=3,
        num_heads=heads,
        num_kv_heads=2,
        head_dim=24,
        intermediate_size=inner,
        mrope_section=(6, 3, 3) if mrope else (),
        max_positions=1 << 16,
    )


def config(family: str, *, small: bool = False) -> VideoLMConfig:
    """A model of a family; ``small``: the draft."""
    mrope = family.startswith("qwen")
    decoder = text(72, 4, 240, mrope=mrope) if small else text(144, 6, 560, mrope=mrope)
    common: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 48 if small else 80,
        "num_heads": 2,
        "intermediate_size": 144 if small else 272,
        "out_hidden_size": decoder.hidden_size,
        "patch_size": PATCH,
    }
    vision: Any = {
        "qwen2_vl": lambda: _qwen2.VisionConfig(**common),
        "qwen2_5_vl": lambda: _qwen2_5.VisionConfig(
            **common, window_size=32, full_attention_layers=(1,)
        ),
        "qwen3_vl": lambda: _qwen3.VisionConfig(
            **common, deepstack_layers=(0, 1), num_positions=64
        ),
        "internvl": lambda: _internvl.VisionConfig(**common, image_size=SIDE * PATCH),
        "llava_onevision": lambda: _llava.VisionConfig(**common, image_size=27 * PATCH),
    }[family]()
    return VideoLMConfig(
        family=family,
        text=decoder,
        vision=vision,
        image_token_id=60,
        video_token_id=60 if family == "internvl" else 61,
        vision_start_token_id=62,
        vision_end_token_id=63,
    )


@dataclass(frozen=True)
class Sized:
    """A call in numbers, as ``plan_memory`` takes it, and as inputs."""

    call: Call
    inputs: ModelInputs


def inputs(model: VideoLM, units: int, draft: VideoLM | None = None) -> Sized:
    """A video of so many temporal units."""
    vision = model.config.vision
    side = vision.image_size // PATCH if hasattr(vision, "image_size") else SIDE
    grid = (units, side, side)
    video = Media("video", np.zeros((units * side * side, vision.patch_dim), np.float32), grid)
    count = model.family.media_tokens(model.config, video).count
    ids = np.array([1, *[model.config.video_token_id] * count, *[2] * (TEXT - 1)], np.int32)
    made = assemble(model, [Row(ids, [video])], draft=draft)
    frames = units * getattr(vision, "temporal_patch_size", 1)
    call = Call(frames=frames, size=(side * PATCH,) * 2, text_tokens=TEXT, max_new_tokens=CAPACITY)
    return Sized(call, jax.eval_shape(lambda given: given, made))


def model(which: VideoLMConfig, home: Home | None = None) -> VideoLM:
    """Shapes of a model as they lie at ``home``."""
    made = abstract_model(which)
    if home is not None:
        weights = declared(made)
        specs = specs_at(which, weights, home)
        made = with_values(
            made,
            {
                path: jax.ShapeDtypeStruct(
                    home.stored_shape(item.shape, specs[path]),
                    item.dtype,
                    sharding=home.sharding(specs[path]),
                )
                for path, item in weights.items()
            },
        )
    made.home = home
    return made


@dataclass(frozen=True)
class Found:
    """What the compiler says of one program on one device, in bytes."""

    arguments: int
    outputs: int
    temporary: int

    @property
    def total(self) -> int:
        """At its peak."""
        return self.arguments + self.outputs + self.temporary


def analysed(lowered: Any) -> Found:
    """Compile. Outputs that take the place of donated arguments count once."""
    memory = lowered.compile(OPTIONS).memory_analysis()
    return Found(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes - memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
    )


def plain(which: VideoLMConfig, units: int) -> tuple[Sized, Found]:
    """The prefill of ``generate``."""
    own = model(which)
    sized = inputs(own, units)
    program = jax.jit(lambda m, i, limit: prefill_state(m, i, limit, None, Settings(CAPACITY)))
    return sized, analysed(program.lower(own, sized.inputs, SCALAR))


def one_program(
    target: VideoLMConfig, draft: VideoLMConfig, units: int, placement: hj.Placement
) -> tuple[Sized, Found, Found]:
    """Both prefills of ``hippo_generate`` and a round, in the programs that the command runs."""
    plan = Plan(Settings(CAPACITY), HippoConfig(gamma=GAMMA, schedule="sequential"))
    pair = [
        model(which, home) for which, home in zip((target, draft), placement.homes(), strict=True)
    ]
    sized = inputs(pair[0], units, pair[1])
    first = jax.jit(lambda t, d, i, limit: start(t, d, i, limit, None, plan))
    lowered = first.lower(*pair, sized.inputs, SCALAR)
    more = jax.jit(
        lambda t, d, state, limit, rounds: advance(t, d, state, limit, None, rounds, plan),
        donate_argnums=2,
    )
    rest = more.lower(*pair, lowered.out_info, SCALAR, SCALAR)
    return sized, analysed(lowered), analysed(rest)


def two_programs(
    target: VideoLMConfig, draft: VideoLMConfig, units: int
) -> tuple[Sized, list[Found], list[Found]]:
    """What the target's device and the draft's run before the first round, one device each."""
    plan = Plan(Settings(CAPACITY), HippoConfig(gamma=GAMMA, schedule="parallel"))
    homes = hj.Placement.on(1, 1).homes()
    pair = [model(which, home) for which, home in zip((target, draft), homes, strict=True)]
    sized = inputs(pair[0], units, pair[1])
    own, other = (FlatModel.of(one) for one in pair)
    reads = sides.target_reads.lower(own, sized.inputs, plan)
    begun, kept = reads.out_info
    starts = sides.target_starts.lower(own, sized.inputs, begun, kept, SCALAR, None, plan)
    looks = sides.draft_looks.lower(other, sized.inputs, plan)
    rest = (looks.out_info[0], SCALAR, None, plan, target.text.vocab_size)
    begins = sides.draft_starts.lower(other, sized.inputs, kept, *rest)
    return sized, [analysed(reads), analysed(starts)], [analysed(looks), analysed(begins)]
