"""Where target and draft live: on one device, on one mesh, or each on devices of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from hippo_jax.architectures.sharding import DEVICE_AXIS, ROLE_AXIS, TENSOR_AXIS, Home, automatic
from hippo_jax.errors import HippoError
from hippo_jax.placement.patience import be_patient


@jax.tree_util.register_static
@dataclass(frozen=True)
class Placement:
    """Where the two models live.

    Attributes:
        target: mesh of the target, ``None`` (default) for the default device. Its axis ``"tp"``
            splits the weights.
        draft: mesh of the draft, ``None`` (default) for the default device. The same mesh as the
            target's: both are split over all of its devices and take turns. A mesh of other
            devices: both work at the same time.
        one_program: how two disjoint meshes work together. ``True``: as one compiled program over
            the devices of both (``shard_map``, a role for each device), which ``jax.jit`` takes and
            which also runs over several hosts. Every device then needs room for its share of both
            models. ``False`` (default): as two programs that run side by side, each model on its
            own devices only; ``hippo_generate`` is then called outside of ``jit``.

    Raises:
        HippoError: meshes that share some of their devices, one mesh missing, one program over
            meshes of different platforms, or on TPUs of different sizes.
    """

    target: Mesh | None = None
    draft: Mesh | None = None
    one_program: bool = False

    def __post_init__(self) -> None:
        if (self.target is None) != (self.draft is None):
            missing = "draft" if self.draft is None else "target"
            raise HippoError(f"the placement has no mesh for the {missing}; give both, or none")
        if self.target is None or self.draft is None:
            if self.one_program:
                raise HippoError("one program over two meshes needs both meshes")
            return
        object.__setattr__(self, "target", automatic(self.target))
        object.__setattr__(self, "draft", automatic(self.draft))
        shared = set(self.target.devices.flat) & set(self.draft.devices.flat)
        if shared and self.target != self.draft:
            names = ", ".join(sorted(str(device) for device in shared))
            raise HippoError(
                f"the meshes of target and draft share {names}; give them the same mesh, or devices"
                " of their own"
            )
        if self.one_program:
            if shared:
                raise HippoError("one program with two roles needs devices for each of them")
            kinds = {mesh.devices.flat[0].platform for mesh in (self.target, self.draft)}
            if len(kinds) > 1:
                raise HippoError(
                    f"one program cannot span {' and '.join(sorted(kinds))} devices; "
                    "use one_program=False"
                )
            counts = self.target.devices.size, self.draft.devices.size
            if kinds == {"tpu"} and counts[0] != counts[1]:
                raise HippoError(
                    f"one program on TPUs needs as many devices for the draft as for the target, "
                    f"not {counts[0]} and {counts[1]}; or use one_program=False"
                )
            for name, mesh in (("target", self.target), ("draft", self.draft)):
                if mesh.axis_names != (TENSOR_AXIS,):
                    raise HippoError(
                        f'one program needs meshes with the one axis "tp"; the {name}\'s has '
                        f"{mesh.axis_names}"
                    )

    @staticmethod
    def on(
        target: int | Sequence[jax.Device],
        draft: int | Sequence[jax.Device],
        *,
        one_program: bool = False,
    ) -> Placement:
        """Devices of their own for target and draft.

        Args:
            target, draft: the devices, or how many: the target then takes the first of
                ``jax.devices()`` and the draft those behind them. For one program this also lets
                CPU devices wait for each other for an hour (``XLA_FLAGS``), where else XLA aborts
                the process after a minute; only if jax has not looked for its devices before.

        Raises:
            HippoError: there are not as many devices.
        """
        given: dict[str, int | Sequence[jax.Device]] = {"target": target, "draft": draft}
        if one_program:
            be_patient()
        known = jax.devices()
        found = {
            role: _listed(role, devices)
            for role, devices in given.items()
            if not isinstance(devices, int)
        }
        for role, count in given.items():
            if isinstance(count, int):
                taken = [device for devices in found.values() for device in devices]
                free = [device for device in known if device not in taken]
                if isinstance(count, bool) or not 1 <= count <= len(free):
                    raise HippoError(
                        f"the {role} cannot have {count} devices: {len(free)} of {len(known)} are "
                        "free"
                    )
                found[role] = free[:count]
        if set(found["target"]) & set(found["draft"]):
            raise HippoError("target and draft share a device; each needs devices of its own here")
        return Placement(
            target=_line(found["target"]), draft=_line(found["draft"]), one_program=one_program
        )

    @property
    def disjoint(self) -> bool:
        """Whether target and draft have devices of their own."""
        return self.target is not None and self.target != self.draft

    @property
    def two_meshes(self) -> bool:
        """Whether two programs run side by side."""
        return self.disjoint and not self.one_program

    def require_own_devices(self) -> None:
        """Two programs side by side are driven from one process.

        Raises:
            HippoError: some devices of two meshes belong to another one.
        """
        if not self.two_meshes:
            return
        assert self.target is not None and self.draft is not None
        devices = [*self.target.devices.flat, *self.draft.devices.flat]
        if {device.process_index for device in devices} != {jax.process_index()}:
            raise HippoError(
                "two programs side by side are driven from one process; over several processes use "
                "Placement(..., one_program=True)"
            )

    def homes(self) -> tuple[Home | None, Home | None]:
        """Home of the target's weights and of the draft's."""
        if self.target is None or self.draft is None:
            return None, None
        if not self.one_program:
            return Home.of(self.target), Home.of(self.draft)
        return role_homes(list(self.target.devices.flat), list(self.draft.devices.flat))


def _listed(role: str, devices: Sequence[jax.Device]) -> list[jax.Device]:
    found = list(devices) if isinstance(devices, Iterable) else []
    if isinstance(devices, Sequence) and not len(devices):
        raise HippoError(f"the {role} has no device")
    if not found or not all(isinstance(device, jax.Device) for device in found):
        raise HippoError(f"the {role} takes a number of devices or a list of them, got {devices!r}")
    return found


def _line(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (TENSOR_AXIS,), axis_types=(AxisType.Auto,))


def role_homes(target: Sequence[jax.Device], draft: Sequence[jax.Device]) -> tuple[Home, Home]:
    """Both models in one mesh that gives each device a role.

    Groups of one size lie along an axis of their own, ``("role", "tp")``, where every collective
    is at hand. Groups of different sizes lie one behind the other on one axis; there only sums and
    maxima know groups (and TPUs refuse them).
    """
    auto = AxisType.Auto
    if len(target) == len(draft):
        devices = np.array([list(target), list(draft)])
        mesh = Mesh(devices, (ROLE_AXIS, TENSOR_AXIS), axis_types=(auto, auto))
        home = Home(mesh, TENSOR_AXIS, len(target))
        return home, home
    mesh = Mesh(np.array([*target, *draft]), (DEVICE_AXIS,), axis_types=(auto,))
    return (
        Home(mesh, DEVICE_AXIS, len(target), 0),
        Home(mesh, DEVICE_AXIS, len(draft), len(target)),
    )
