"""The draft on a device of its own beside the target's, such as the host's CPU beside a GPU.

Two programs side by side (scheduler B). Whether they work at the same time is seen by a round's
time beside that of each role's program alone: a round cannot be shorter than the slower role, and
takes the sum of both where one waits for the other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from hippo_jax.architectures.parameters import declared, values, with_values
from hippo_jax.architectures.sharding import Home, specs_at
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.measure import Run, Summary
from hippo_jax.benchmark.role_rounds import draft_alone, target_alone
from hippo_jax.benchmark.timed import Decoder
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.placement import Placement
from hippo_jax.scheduling import two_meshes
from hippo_jax.scheduling.plan import make_plan
from hippo_jax.weights.host import default_device, default_dtype

ROUNDS = 8  # of a role alone
TARGET, DRAFT = "target_ms", "draft_ms"


def draft_device(platform: str) -> jax.Device:
    """A device of this kind that is not the target's, which has the default one.

    Raises:
        HippoError: there is none.
    """
    target = default_device()
    try:
        found = [device for device in jax.local_devices(backend=platform) if device != target]
    except RuntimeError:
        found = []
    if not found:
        raise HippoError(
            f"--draft-on {platform}: there is no {platform} device beside the target's"
        )
    return found[0]


def side_by_side(pair: ModelPair, draft: jax.Device) -> ModelPair:
    """A pair on the default device with its draft copied to another one, in what that computes in
    by default; the target keeps its arrays."""
    placement = Placement.on([default_device()], [draft])
    homes = placement.homes()
    assert homes[0] is not None and homes[1] is not None
    copied = _at(pair.draft, homes[1], default_dtype(draft))
    if draft.platform != "gpu":
        copied.attention = "blocks"  # whatever kernel a GPU has
    return ModelPair(_at(pair.target, homes[0], None), copied, placement)


def _at(model: VideoLM, home: Home, dtype: Any) -> VideoLM:
    """The model's arrays at a home of one device, where they stay the same ones if they are there
    already. ``dtype``: of those that hold no integers; ``None``: as they are."""
    specs = specs_at(model.config, declared(model), home)

    def moved(path: str, value: jax.Array) -> jax.Array:
        there = jax.device_put(value, NamedSharding(home.mesh, specs[path]))
        keep = dtype is None or jnp.issubdtype(value.dtype, jnp.integer)
        return there if keep else there.astype(dtype)

    found = with_values(model, {path: moved(path, value) for path, value in values(model).items()})
    found.home = home
    return found


def two_mesh_decoder(
    pair: ModelPair, new_tokens: int, config: HippoConfig, end_tokens: tuple[int, ...] | None = None
) -> Decoder:
    """Two programs side by side; arguments as for ``timed.hippo_decoder``."""

    def begin(inputs: ModelInputs) -> Any:
        plan, limit = make_plan(pair, inputs, new_tokens, None, None, None, end_tokens, config)
        models = (pair.target, pair.draft)
        sides = two_meshes.begin(*models, inputs, np.int32(limit), None, plan, pair.placement)
        target, draft = sides
        jax.block_until_ready((target.state, target.said, draft.state, draft.proposal))
        return sides

    def end(inputs: ModelInputs, sides: Any) -> Generation:
        target, draft = sides
        return two_meshes.complete(target, draft, pair.placement)

    return Decoder(begin, end, int(config.schedule == "parallel"))


def roles_alone(pair: ModelPair, inputs: ModelInputs, new_tokens: int, config: HippoConfig) -> Run:
    """Milliseconds of each role's program of a round, with nothing beside it. Parallel schedule."""
    # No end: a row that is done has nothing left to compute.
    plan, limit = make_plan(pair, inputs, new_tokens, None, None, None, (), config)
    rounds = max(1, min(ROUNDS, (new_tokens - 1) // (plan.gamma + 1)))

    def run() -> Mapping[str, float]:
        found = {}
        models = (pair.target, pair.draft)
        sides = two_meshes.begin(*models, inputs, np.int32(limit), None, plan, pair.placement)
        for name, alone in ((TARGET, target_alone), (DRAFT, draft_alone)):
            go = alone(*sides, rounds)
            begin = time.perf_counter()
            go()
            found[name] = 1e3 * (time.perf_counter() - begin) / rounds
        return found

    return run


def overlap(pair: ModelPair, alone: Mapping[str, Summary], round_ms: Summary) -> dict[str, Any]:
    """What the roles take alone and together, for the outcome."""
    slower = max(alone[name].median for name in (TARGET, DRAFT))
    return {
        "target_on": _device(pair.target),
        "draft_on": _device(pair.draft),
        "draft_dtype": jnp.dtype(pair.draft.dtype).name,
        **{name: asdict(alone[name]) for name in (TARGET, DRAFT)},
        "round_ms": asdict(round_ms),
        "over_slower": round_ms.median / slower,
        "over_sum": round_ms.median / sum(alone[name].median for name in (TARGET, DRAFT)),
    }


def _device(model: VideoLM) -> str:
    assert model.home is not None
    device = model.home.mesh.devices.flat[0]
    return f"{device.platform}:{device.id}"
