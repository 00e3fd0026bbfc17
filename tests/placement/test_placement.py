"""Placements: what is refused, which device holds which part of a weight, equality."""

import os

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

import hippo_jax as hj
from hippo_jax.placement.patience import WAIT_FLAG
from hippo_jax.placement.placement import role_homes
from hippo_jax.weights.host import place


def mesh(*numbers: int, axes: tuple[str, ...] = ("tp",)) -> Mesh:
    """The devices of these numbers, all but the last axis of length 1."""
    devices = np.array([jax.devices()[number] for number in numbers])
    return Mesh(devices.reshape((1,) * (len(axes) - 1) + (-1,)), axes)


@pytest.mark.parametrize(
    ("meshes", "said"),
    [
        (lambda: {"target": mesh(0)}, "no mesh for the draft"),
        (lambda: {"draft": mesh(0)}, "no mesh for the target"),
        (lambda: {"target": mesh(0, 1), "draft": mesh(1, 2)}, "share .*1; give"),
        (lambda: {"target": mesh(0, 1), "draft": mesh(1, 0)}, "share .*0, .*1; give"),
        (lambda: {"target": mesh(0, 1), "draft": mesh(0)}, "share .*0; give"),
        (lambda: {"target": mesh(0), "draft": [jax.devices()[1]]}, "Mesh, this is a list"),
        (lambda: {"one_program": True}, "needs both meshes"),
        (
            lambda: {"target": mesh(0, 1), "draft": mesh(0, 1), "one_program": True},
            "devices for each",
        ),
        (
            lambda: {"target": mesh(0), "draft": mesh(1, axes=("x",)), "one_program": True},
            "the draft's has .*'x'",
        ),
        (
            lambda: {
                "target": mesh(0, axes=("data", "tp")),
                "draft": mesh(1),
                "one_program": True,
            },
            "the target's has .*'data', 'tp'",
        ),
    ],
)
def test_what_is_no_placement(meshes, said: str) -> None:
    with pytest.raises(hj.HippoError, match=said) as caught:
        hj.Placement(**meshes())
    assert "\n" not in str(caught.value)


class OtherDevice:
    """What a mesh and a placement look at. No machine of the tests has two platforms."""

    platform, id, process_index = "gpu", 0, 0


def test_one_program_cannot_span_platforms() -> None:
    there = Mesh(np.array([OtherDevice()]), ("tp",))
    assert hj.Placement(mesh(0), there).two_meshes
    with pytest.raises(hj.HippoError, match="cpu and gpu devices; use one_program=False"):
        hj.Placement(mesh(0), there, one_program=True)


def test_tpus_need_groups_of_one_size() -> None:
    """XLA refuses other groups there (``test_other_platforms``)."""

    def tpus(first: int, count: int) -> Mesh:
        devices = [OtherDevice() for _ in range(count)]
        for number, device in enumerate(devices, first):
            device.platform, device.id = "tpu", number
        return Mesh(np.array(devices), ("tp",))

    assert hj.Placement(tpus(0, 2), tpus(2, 2), one_program=True).disjoint
    assert hj.Placement(tpus(0, 2), tpus(2, 1)).two_meshes
    with pytest.raises(hj.HippoError, match="for the target, not 2 and 1; or use one_program=F"):
        hj.Placement(tpus(0, 2), tpus(2, 1), one_program=True)


@pytest.mark.parametrize(
    ("target", "draft", "said"),
    [
        (0, 1, "the target cannot have 0 devices"),
        (9, 1, "the target cannot have 9 devices: 8 of 8"),
        (7, 2, "the draft cannot have 2 devices: 1 of 8"),
        (8, 1, "the draft cannot have 1 devices: 0 of 8"),
        (1, -1, "the draft cannot have -1 devices"),
        ([], 1, "the target has no device"),
        (1, [], "the draft has no device"),
    ],
)
def test_devices_that_are_not_there(target, draft, said: str) -> None:
    assert len(jax.devices()) == 8
    with pytest.raises(hj.HippoError, match=said):
        hj.Placement.on(target, draft)


def test_numbers_of_devices_count_from_the_first_free_one() -> None:
    devices = jax.devices()
    placement = hj.Placement.on(3, 2)
    assert list(placement.target.devices.flat) == devices[:3]
    assert list(placement.draft.devices.flat) == devices[3:5]
    placement = hj.Placement.on(devices[4:6], 2)
    assert list(placement.target.devices.flat) == devices[4:6]
    assert list(placement.draft.devices.flat) == devices[:2]


def test_kinds_of_placement() -> None:
    alone, shared = hj.Placement(), hj.Placement(mesh(0, 1), mesh(0, 1))
    apart, program = hj.Placement.on(2, 1), hj.Placement.on(2, 1, one_program=True)
    assert [p.disjoint for p in (alone, shared, apart, program)] == [False, False, True, True]
    assert [p.two_meshes for p in (alone, shared, apart, program)] == [False, False, True, False]
    assert alone.homes() == (None, None)
    assert [(home.size, home.total, home.has_roles) for home in shared.homes()] == [
        (2, 2, False)
    ] * 2
    assert [(home.size, home.total, home.has_roles) for home in apart.homes()] == [
        (2, 2, False),
        (1, 1, False),
    ]
    assert [(home.size, home.total, home.has_roles) for home in program.homes()] == [
        (2, 3, True),
        (1, 3, True),
    ]


def test_a_placement_hashes_and_compares() -> None:
    one = hj.Placement.on(2, 1)
    same = hj.Placement.on(jax.devices()[:2], jax.devices()[2:3])
    assert one == same and hash(one) == hash(same) and one is not same
    others = [
        hj.Placement(),
        hj.Placement.on(1, 2),
        hj.Placement.on(2, jax.devices()[3:4]),
        hj.Placement.on(jax.devices()[1::-1], 1),
        hj.Placement.on(2, 1, one_program=True),
    ]
    assert len({one, same, *others}) == 1 + len(others)
    # Axes of jax.make_mesh are explicit; what the models need of a mesh is the same.
    made = jax.make_mesh((2,), ("tp",), devices=jax.devices()[:2])
    assert made.axis_types != (AxisType.Auto,)
    assert hj.Placement(made, one.draft) == one
    assert jax.tree.leaves(one) == []  # static, and so a part of a program's signature


def held_by_device(home, rows: int) -> list[list[int]]:
    """Which rows of a weight split over the first axis each of the first devices holds."""
    value = np.arange(rows, dtype=np.float32)
    array, _ = place(value, np.dtype(np.float32), P(home.axis), home)
    found = {shard.device: np.asarray(shard.data) for shard in array.addressable_shards}
    return [found[device].astype(int).tolist() for device in home.mesh.devices.flat]


def test_roles_of_equal_groups_lie_along_an_axis() -> None:
    devices = jax.devices()
    target, draft = role_homes(devices[4:6], devices[:2])
    assert target == draft
    assert target.mesh.axis_names == ("role", "tp")
    assert target.mesh.devices.tolist() == [devices[4:6], devices[:2]]
    assert (target.axis, target.size, target.first, target.groups) == ("tp", 2, 0, None)
    assert target.has_roles
    # The other role's devices hold copies, in the same order.
    assert held_by_device(target, 4) == [[0, 1], [2, 3]] * 2


def test_roles_of_other_groups_lie_behind_each_other() -> None:
    devices = jax.devices()
    target, draft = role_homes(devices[:2], devices[2:5])
    assert target.mesh == draft.mesh
    assert target.mesh.axis_names == ("device",)
    assert list(target.mesh.devices.flat) == devices[:5]
    assert (target.first, target.size, target.groups) == (0, 2, ((0, 1), (2, 3, 4)))
    assert (draft.first, draft.size, draft.groups) == (2, 3, ((0, 1), (2, 3, 4)))
    assert [target.owner(slot) for slot in range(5)] == [0, 1, 0, 1, 0]
    assert [draft.owner(slot) for slot in range(5)] == [1, 2, 0, 1, 2]
    # A role's own devices hold the weight once, in order; the others copies of some part.
    assert held_by_device(target, 4) == [[0, 1], [2, 3], [0, 1], [2, 3], [0, 1]]
    assert held_by_device(draft, 3) == [[1], [2], [0], [1], [2]]


def test_counts_take_what_lists_leave() -> None:
    devices = jax.devices()
    placement = hj.Placement.on(2, devices[:1])
    assert list(placement.target.devices.flat) == devices[1:3]
    with pytest.raises(hj.HippoError, match="share a device"):
        hj.Placement.on(devices[:2], devices[1:2])
    for bad in (True, 0, 2.0, "ab", []):
        with pytest.raises(hj.HippoError) as caught:
            hj.Placement.on(bad, 1)
        assert "\n" not in str(caught.value)


def test_one_program_lets_devices_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA reads the flags when its devices are first looked for."""
    monkeypatch.setenv("XLA_FLAGS", "--some")
    hj.Placement.on(1, 1)
    assert os.environ["XLA_FLAGS"] == "--some"
    hj.Placement.on(1, 1, one_program=True)
    assert os.environ["XLA_FLAGS"] == f"--some {WAIT_FLAG}=3600"
    monkeypatch.setenv("XLA_FLAGS", f"{WAIT_FLAG}=5")
    hj.Placement.on(1, 1, one_program=True)
    assert os.environ["XLA_FLAGS"] == f"{WAIT_FLAG}=5"
