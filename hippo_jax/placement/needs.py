"""What a pair takes where its placement puts it, and the refusal of what cannot fit.

Weights alone are compared with the memory of devices: a pair that is refused cannot run, and one
that is not may still be tight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.placement.memory import MemoryOf, as_text, device_memory, weight_bytes
from hippo_jax.placement.placement import Placement
from hippo_jax.weights.host import default_device, default_dtype, parse_dtype


@dataclass(frozen=True)
class RoleNeeds:
    """What one of the two models takes.

    Attributes:
        role: ``"target"`` or ``"draft"``.
        devices: those that work for it.
        holders: those that hold its weights: in one program with two roles the other's devices too.
        dtype, quantize: of its weights, as for ``load_model``.
        home: where it is split, ``None`` on one device.
        loaded: its weights are on their devices already.
    """

    role: str
    config: VideoLMConfig
    dtype: np.dtype[Any]
    home: Home | None
    devices: tuple[jax.Device, ...]
    holders: tuple[jax.Device, ...]
    loaded: bool = False
    quantize: str | None = None

    @property
    def weights(self) -> int:
        """Bytes of its weights on each of the holders."""
        return weight_bytes(self.config, self.dtype, self.home, self.quantize)

    @property
    def whole(self) -> int:
        """Bytes of its weights, each counted once. Quick unless they are quantized: it makes no
        abstract model."""
        if self.quantize is not None:
            return weight_bytes(self.config, self.dtype, None, self.quantize)
        tensors = family_of(self.config.family).hf_tensors(self.config).values()
        return sum(math.prod(item.shape) for item in tensors) * self.dtype.itemsize


@dataclass(frozen=True)
class Needs:
    """What a pair takes where its placement puts it (see ``pair_needs``)."""

    target: RoleNeeds
    draft: RoleNeeds
    placement: Placement

    @property
    def roles(self) -> tuple[RoleNeeds, RoleNeeds]:
        """Target and draft."""
        return self.target, self.draft

    def on(self, device: jax.Device) -> int:
        """Bytes of the weights of both models that ``device`` holds."""
        return sum(role.weights for role in self.roles if device in role.holders)

    @property
    def in_one_program(self) -> int | None:
        """Bytes of weights on each device if one program spans all of them: a share of both models,
        which is also what one device or one mesh for both holds. ``None`` where the meshes cannot
        be in one program."""
        if self.placement.disjoint:
            try:
                replace(self.placement, one_program=True)
            except HippoError:
                return None
        return self.target.weights + self.draft.weights

    def memory_table(self) -> str:
        """For each role its devices, the weights on each of them if they hold this model alone (two
        programs side by side), and if they hold a share of both (one program)."""
        both = self.in_one_program
        rows = [("role", "devices", "alone, each", "in one program, each")]
        for role in self.roles:
            kinds = ", ".join(sorted({device.device_kind for device in role.devices}))
            devices = f"{len(role.devices)} {kinds}"
            together = "not possible" if both is None else as_text(both)
            rows.append((role.role, devices, as_text(role.weights), together))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"{role:{widths[0]}}  {devices:{widths[1]}}  {alone:>{widths[2]}}  {both:>{widths[3]}}"
            for role, devices, alone, both in rows
        )


def pair_needs(
    target: VideoLMConfig | VideoLM,
    draft: VideoLMConfig | VideoLM,
    placement: Placement | None = None,
    dtype: Any = None,
    quantize: tuple[str | None, str | None] = (None, None),
) -> Needs:
    """What a pair takes under ``placement``.

    Args:
        target, draft: the config of a model that is to be loaded, or a loaded model, which counts
            as it is.
        placement: default: both on the default device.
        dtype: as for ``load_model``.
        quantize: the same of target and draft, of those that are to be loaded.
    """
    placement = placement or Placement()
    meshes, homes = (placement.target, placement.draft), placement.homes()
    found = []
    for role, model, mesh, home, small in zip(
        ("target", "draft"), (target, draft), meshes, homes, quantize, strict=True
    ):
        devices = None if mesh is None else tuple(mesh.devices.flat)
        if isinstance(model, VideoLM):
            found.append(_as_it_is(role, model, devices))
            continue
        devices = devices or (default_device(),)
        holders = devices if home is None else tuple(home.mesh.devices.flat)
        own = default_dtype(holders[0]) if dtype is None else parse_dtype(dtype)
        found.append(RoleNeeds(role, model, own, home, devices, holders, quantize=small))
    return Needs(found[0], found[1], placement)


def _as_it_is(role: str, model: VideoLM, devices: tuple[jax.Device, ...] | None) -> RoleNeeds:
    """A model that is loaded, ``devices`` if it works on some of its holders only. Whether it is
    where the placement wants it is checked elsewhere."""
    held = {
        device
        for leaf in jax.tree.leaves(model)
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
        for device in leaf.devices()
    }
    holders = tuple(sorted(held, key=lambda device: device.id)) or (default_device(),)
    dtype = np.dtype(model.dtype)
    return RoleNeeds(
        role,
        model.config,
        dtype,
        model.home,
        devices or holders,
        holders,
        loaded=True,
        quantize=model.quantize,
    )


def check_memory(needs: Needs, memory: MemoryOf = device_memory) -> None:
    """Refuse a pair whose weights alone are more than its devices can hold.

    A device with memory of its own needs room for all that it holds. Devices that share theirs need
    room for each weight once: they are given one buffer where they hold the same part. Devices of
    unknown memory are not checked.

    Raises:
        HippoError: too little memory somewhere.
    """
    held = {device: memory(device) for role in needs.roles for device in role.holders}
    known = {device: found for device, found in held.items() if found is not None}
    whole = sum(role.whole for role in needs.roles)
    if all(whole <= found.size for found in known.values()):
        return  # whatever lies where
    own = {device: found.size for device, found in known.items() if not found.shared}
    common = {device: found.size for device, found in known.items() if found.shared}
    short = [device for device, size in own.items() if needs.on(device) > size]
    # Of a mesh over several hosts only a part is in this one's memory.
    in_common = sum(
        min(role.whole, role.weights * len(common.keys() & set(role.holders)))
        for role in needs.roles
    )
    too_much = bool(common) and in_common > min(common.values())
    if not short and not too_much:
        return
    parts = [_would_take(needs, role, own) for role in needs.roles]
    if common:
        kind = next(iter(common)).platform
        parts.append(
            f"together {as_text(in_common)} of the {as_text(min(common.values()))} that all {kind} "
            "devices share"
        )
    helps = " or ".join(_helps(needs, bool(short)))
    raise HippoError(f"the pair's weights do not fit in memory: {'; '.join(parts)}; use {helps}")


def _would_take(needs: Needs, role: RoleNeeds, own: Mapping[jax.Device, int]) -> str:
    device = max(role.devices, key=lambda device: needs.on(device) - own.get(device, math.inf))
    total, count = needs.on(device), len(role.devices)
    other = "draft" if role.role == "target" else "target"
    both = f" ({as_text(total)} with the {other}'s)" if total != role.weights else ""
    where = f"each of {count} devices" if count > 1 else "1 device"
    has = f" of {as_text(own[device])}" if device in own else ""
    return f"the {role.role} needs {as_text(role.weights)}{both} on {where}{has}"


def _helps(needs: Needs, short: bool) -> list[str]:
    """What the user can do; ``short``: devices with memory of their own have too little."""
    found = []
    if any(not role.loaded and role.dtype.itemsize > 2 for role in needs.roles):
        found.append('dtype="bfloat16"')
    if not short:
        return [*found, "smaller models"]
    found.append("more devices")
    if needs.placement.one_program:
        found.append("one_program=False (a device then holds its own model alone)")
    elif not needs.placement.disjoint:
        found.append("devices of its own for each model (Placement.on)")
    return found
