"""Will it fit? Weights, caches, inputs and peak activations of a pair on each device, from sizes
alone: nothing is read, compiled or allocated, and the devices need not be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.int8 import check_quantize
from hippo_jax.architectures.published import published_config, published_names
from hippo_jax.architectures.registry import family_of
from hippo_jax.decoding.config import DEFAULT_GAMMA
from hippo_jax.errors import HippoError
from hippo_jax.inputs.buckets import bucket
from hippo_jax.inputs.compatibility import check_configs
from hippo_jax.placement import activations as held
from hippo_jax.placement.call_sizes import Call, draft_prompt, read_call
from hippo_jax.placement.memory import Memory, cache_bytes, weight_bytes
from hippo_jax.weights.host import parse_dtype

# Above this share of a device's memory a plan is called tight: the formulas are within a tenth,
# and the allocator cannot use the last of it.
COMFORTABLE = 0.9

Verdict = Literal["fits", "tight", "does not fit", "unknown"]


@dataclass(frozen=True)
class Layout:
    """How many devices work for each model, and how.

    Attributes:
        target, draft: devices. Without roles of their own the two share them.
        kind: ``"shared"``: both models on the same devices, by turns; one device is one of these.
            ``"meshes"``: devices of their own, two programs. ``"program"``: devices of their own
            in one program, where each device holds a share of both.
    """

    target: int = 1
    draft: int = 1
    kind: Literal["shared", "meshes", "program"] = "shared"

    def __post_init__(self) -> None:
        if min(self.target, self.draft) < 1:
            raise HippoError(f"devices must be at least 1 a model, got {self.target}+{self.draft}")
        if self.kind == "shared" and self.target != self.draft:
            raise HippoError(
                f"models on the same devices are split over all of them, not "
                f"{self.target}+{self.draft}; use devices of their own"
            )

    @property
    def devices(self) -> int:
        """All of them."""
        return self.target if self.kind == "shared" else self.target + self.draft


@dataclass(frozen=True)
class RoleMemory:
    """What one model takes on each device that works for it, in bytes.

    Attributes:
        devices: how many work for it.
        reading: activations of the widest moment while the prompt is read.
        rounds: the same of a round.
    """

    role: str
    devices: int
    weights: int
    cache: int
    reading: int
    rounds: int

    @property
    def activations(self) -> int:
        """Of the widest moment of all."""
        return max(self.reading, self.rounds)


@dataclass(frozen=True)
class MemoryPlan:
    """What ``plan_memory`` found, in bytes.

    Attributes:
        roles: the target's part, then the draft's if there is one.
        inputs: of pixels and prompts, on every device.
        layout: where the models are.
        visual_tokens: of one row.
        prompt_tokens: of one row as the target and as the draft read it, padding included.
        memory: what a device has, ``None`` if that is not known.
    """

    roles: tuple[RoleMemory, ...]
    inputs: int
    layout: Layout
    visual_tokens: int
    prompt_tokens: tuple[int, ...]
    memory: Memory | None

    @cached_property
    def device(self) -> tuple[int, ...]:
        """The peak on each device: one number where all devices hold the same, else one for a
        target's and one for a draft's device."""
        if self.layout.kind == "meshes" and len(self.roles) > 1:
            return tuple(r.weights + r.cache + r.activations + self.inputs for r in self.roles)
        kept = sum(role.weights + role.cache for role in self.roles)
        return (kept + self.inputs + max(role.activations for role in self.roles),)

    @property
    def most(self) -> int:
        """The peak on the fullest device; of all devices together where they share memory."""
        if self.memory is None or not self.memory.shared:
            return max(self.device)
        if len(self.device) == 1:
            return self.device[0] * self.layout.devices
        counts = (self.layout.target, self.layout.draft)
        return sum(n * each for n, each in zip(counts, self.device, strict=True))

    @property
    def verdict(self) -> Verdict:
        """Whether it fits: ``"tight"`` is above nine tenths of the memory."""
        if self.memory is None:
            return "unknown"
        if self.most > self.memory.size:
            return "does not fit"
        return "fits" if self.most <= COMFORTABLE * self.memory.size else "tight"


def plan_memory(
    target: VideoLMConfig,
    draft: VideoLMConfig | None = None,
    *,
    layout: Layout | None = None,
    call: Call | None = None,
    dtype: Any = "bfloat16",
    gamma: int = DEFAULT_GAMMA,
    keep_ratio: float = 0.1,
    memory: Memory | None = None,
    platform: str = "gpu",
    quantize_target: str | None = None,
    quantize_draft: str | None = None,
) -> MemoryPlan:
    """What a pair needs on each device to answer one call.

    Weights, caches and inputs are exact; activations follow the formulas of
    ``placement.activations``.

    Args:
        target, draft: configs (``published_config(name)``, or ``.config`` of a model); without a
            draft the target decodes alone.
        layout: devices and how they are used; default one device.
        call: video, prompt and answer.
        dtype: of weights, caches and activations.
        quantize_target, quantize_draft: as for ``load_pair``: smaller weights, all else alike. The
            parts of kernels that are converted as they are used are not counted.
        gamma, keep_ratio: as in ``HippoConfig``.
        memory: what each device has.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``: it bounds the blocks of attention scores.

    Raises:
        HippoError: models that cannot share inputs, a prompt longer than the model allows, numbers
            that make no sense.
    """
    layout, call = layout or Layout(), call or Call()
    small = check_quantize(quantize_target), check_quantize(quantize_draft)
    item = parse_dtype(dtype).itemsize
    if draft is not None:
        check_configs(target, draft, family_of(target.family).shared)
    read = read_call(target, call)
    sizes = held.Sizes(
        config=target,
        devices=layout.target,
        itemsize=item,
        batch=call.batch,
        prompt=read.prompt,
        visual=read.lines,
        asked=bucket(call.text_tokens, 32),
        tower=read.load(target),
        score_bytes=held.score_bound(platform),
        in_turn=platform == "cpu",
    )
    capacity = bucket(call.max_new_tokens, 32)
    found = []
    if draft is None:
        caches = [cache_bytes(target, dtype, layout.target, call.batch, read.prompt, capacity)]
        found.append(_alone(sizes))
        rounds = [held.round_bytes(sizes, 1, read.prompt + capacity)]
        prompts = [read.prompt]
    else:
        short = draft_prompt(read, keep_ratio)
        prompts = [read.prompt, short]
        rooms = (capacity + gamma, capacity + 2 * gamma)
        caches = [
            cache_bytes(config, dtype, devices, call.batch, prompt, room)
            for config, devices, prompt, room in zip(
                (target, draft), (layout.target, layout.draft), prompts, rooms, strict=True
            )
        ]
        other = replace(
            sizes, config=draft, devices=layout.draft, prompt=short, tower=read.load(draft)
        )
        prunes = keep_ratio < 1 and read.lines > 0
        found += _together(sizes, other, layout, caches[0], prunes)
        rounds = [
            held.round_bytes(sizes, gamma + 1, read.prompt + rooms[0]),
            held.round_bytes(other, 2, short + rooms[1]),
        ]
    configs = [target] if draft is None else [target, draft]
    counts = (layout.target, layout.draft)
    roles = tuple(
        RoleMemory(role, devices, weight_bytes(config, dtype, devices, how), cache, reading, own)
        for role, config, devices, how, cache, reading, own in zip(
            ("target", "draft"), configs, counts, small, caches, found, rounds, strict=False
        )
    )
    inputs = held.input_bytes(sizes)
    return MemoryPlan(roles, inputs, layout, read.visual, tuple(prompts), memory)


def _alone(sizes: held.Sizes) -> int:
    """The widest moment of one model that reads its prompt by itself."""
    return max(
        held.tower_stages(sizes).peak + held.loop_zeros(sizes),
        held.visual_bytes(sizes) + held.prefill_bytes(sizes),
    )


def _together(
    target: held.Sizes,
    draft: held.Sizes,
    layout: Layout,
    cache: int,
    prunes: bool,
) -> tuple[int, int]:
    """The same for target and draft."""
    first, second = _alone(target), _alone(draft)
    if prunes:
        read = held.visual_bytes(target) + held.prefill_bytes(target)
        first = max(first, read + held.choosing_bytes(target))
    if layout.kind == "shared":
        # One program: while one works the other's visual tokens wait, or its tower in between.
        own, other = held.tower_stages(target), held.tower_stages(draft)
        towers = held.both_towers(own, other, split=layout.devices > 1)
        towers += held.loop_zeros(target) + held.loop_zeros(draft)
        first = max(
            towers,
            first + max(held.visual_bytes(draft), 0 if other.chunked else 2 * other.residual),
        )
        second += held.visual_bytes(target)
    elif prunes:
        # The keys and values of the whole prompt are handed over before the cache is made of them.
        if layout.kind == "program":
            first += cache
        else:
            first = max(first, cache + held.logit_bytes(target, 1))
    return first, second


def published_plans(**arguments: Any) -> Iterator[tuple[str, str, MemoryPlan]]:
    """Plans for all published pairs: names of target and draft, and what they need. Arguments as
    for ``plan_memory``."""
    configs = {name: published_config(name) for name in published_names()}
    sizes = {name: weight_bytes(config, "bfloat16", None) for name, config in configs.items()}
    for target, own in configs.items():
        for draft, other in configs.items():
            if own.family != other.family or sizes[draft] >= sizes[target]:
                continue
            try:
                yield target, draft, plan_memory(own, other, **arguments)
            except HippoError:  # inputs of one do not suit the other, or the prompt is too long
                continue
