"""Planned memory against the compiler's own analysis of the real programs, float32 on CPU."""

import math

import jax
import pytest
from support import memory_cases as cases
from support.memory_cases import GAMMA, Found, Sized

import hippo_jax as hj
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.published import published_config
from hippo_jax.architectures.registry import family_of
from hippo_jax.inputs.buckets import bucket
from hippo_jax.placement.call_sizes import Call, draft_prompt, read_call
from hippo_jax.placement.memory import Memory
from hippo_jax.placement.plan_memory import Layout, MemoryPlan, RoleMemory

FAMILIES = ("internvl", "llava_onevision", "qwen2_5_vl", "qwen2_vl", "qwen3_vl")
SLOW = pytest.mark.slow
GIB = 2**30


def planned(
    sized: Sized,
    target: VideoLMConfig,
    draft: VideoLMConfig | None = None,
    layout: Layout | None = None,
) -> MemoryPlan:
    return hj.plan_memory(
        target,
        draft,
        layout=layout,
        call=sized.call,
        dtype="float32",
        gamma=GAMMA,
        platform="cpu",
    )


# Short videos whose frames need no loop: here the compiler computes the scores of both split towers
# at once, which it mostly does not.
AT_ONCE = {("qwen3_vl", 4, 2), ("internvl", 4, 2)}


def compare(
    plan: int,
    found: int,
    activations: int,
    temporary: int,
    within: tuple[float, float] = (0.1, 0.15),
) -> None:
    """Everything within a tenth, and activations by themselves within 15 %, where they are so much
    of it that weights alone would be far off."""
    said = (
        f"{found / 2**20:.1f} MiB, {temporary / found:.0%} activations; the plan is off by "
        f"{plan / found - 1:+.1%}, of activations {activations / temporary - 1:+.1%}"
    )
    print(said)
    assert temporary >= 0.4 * found, said
    assert abs(plan / found - 1) <= within[0], said
    assert abs(activations / temporary - 1) <= within[1], said


@pytest.mark.parametrize(
    ("family", "units"),
    [
        ("llava_onevision", 3),
        ("qwen2_5_vl", 12),
        *(pytest.param(family, units, marks=SLOW) for family in FAMILIES for units in (4, 16, 30)),
    ],
)
def test_a_prefill_takes_what_is_planned(family: str, units: int) -> None:
    config = cases.config(family)
    sized, found = cases.plain(config, units)
    plan = planned(sized, config)
    compare(plan.most, found.total, plan.roles[0].reading, found.temporary)


def tower_bytes(config: VideoLMConfig) -> int:
    """Weights that a round does not touch: the compiled program is not given them."""
    tensors = family_of(config.family).hf_tensors(config).items()
    return 4 * sum(math.prod(item.shape) for path, item in tensors if path.startswith("vision."))


def on_one_mesh(devices: int) -> hj.Placement:
    if devices == 1:
        return hj.Placement()
    mesh = jax.make_mesh((devices,), ("tp",), devices=jax.devices()[:devices])
    return hj.Placement(mesh, mesh)


@pytest.mark.parametrize(
    ("family", "units", "devices"),
    [
        ("llava_onevision", 2, 2),
        ("qwen2_5_vl", 9, 1),
        *(
            pytest.param(family, units, devices, marks=SLOW)
            for family in ("llava_onevision", "qwen2_5_vl", "internvl", "qwen3_vl")
            for units in (4, 14)
            for devices in (1, 2)
        ),
    ],
)
def test_a_pair_in_one_program_takes_what_is_planned(family: str, units: int, devices: int) -> None:
    target, draft = cases.config(family), cases.config(family, small=True)
    sized, reading, rounds = cases.one_program(target, draft, units, on_one_mesh(devices))
    plan = planned(sized, target, draft, Layout(devices, devices))
    own = max(role.reading for role in plan.roles)
    within = (0.2, 0.4) if (family, units, devices) in AT_ONCE else (0.1, 0.15)
    compare(plan.most, reading.total, own, reading.temporary, within)
    if devices == 1:
        kept = sum(role.weights + role.cache for role in plan.roles)
        kept -= tower_bytes(target) + tower_bytes(draft)
        need = kept + max(role.rounds for role in plan.roles)
        assert abs(need / rounds.total - 1) <= 0.1
    assert rounds.temporary < max(role.activations for role in plan.roles)


@SLOW
@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl"])
def test_roles_in_one_program_take_what_is_planned(family: str) -> None:
    target, draft = cases.config(family), cases.config(family, small=True)
    placement = hj.Placement.on(1, 1, one_program=True)
    sized, reading, _ = cases.one_program(target, draft, 5, placement)
    plan = planned(sized, target, draft, Layout(1, 1, "program"))
    compare(plan.most, reading.total, max(role.reading for role in plan.roles), reading.temporary)


@pytest.mark.parametrize("family", ["qwen2_5_vl", pytest.param("llava_onevision", marks=SLOW)])
def test_two_programs_take_what_is_planned(family: str) -> None:
    """A device keeps all weights of its model, also while a program runs that reads but a part."""
    target, draft = cases.config(family), cases.config(family, small=True)
    sized, *found = cases.two_programs(target, draft, 5)
    plan = planned(sized, target, draft, Layout(1, 1, "meshes"))
    assert plan.most == max(plan.device)

    def held(role: RoleMemory, program: Found) -> int:
        return role.weights + plan.inputs + program.outputs + program.temporary

    for role, device, programs in zip(plan.roles, plan.device, found, strict=True):
        need = max(held(role, program) for program in programs)
        assert abs(device / need - 1) <= 0.1, (role.role, device, need)


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_those_of_prepared_inputs(family: str) -> None:
    config = cases.config(family)
    made = cases.inputs(cases.model(config), 5)
    read = read_call(config, made.call)
    assert made.inputs.token_ids.shape == (1, read.prompt)
    assert made.inputs.table.valid.shape == (read.lines,)
    load = read.load(config)
    assert load is not None and made.inputs.vision is not None
    assert made.inputs.vision.pixels.shape == (load.pixels, config.vision.patch_dim)
    given = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(made.inputs))
    assert abs(planned(made, config).inputs / given - 1) <= 0.05


def test_a_call_in_numbers() -> None:
    qwen, llava = published_config("qwen2.5-vl-7b"), published_config("llava-onevision-7b")
    read = read_call(qwen, Call(frames=9, size=(224, 280), text_tokens=10, batch=2))
    assert (read.grids, read.visual) == (((5, 16, 20),) * 2, 400)
    assert (read.lines, read.prompt) == (bucket(800, 64), bucket(410, 32))
    # A tenth of the visual tokens that a row of these shapes may have, and all text.
    assert draft_prompt(read, 0.1) == 32 + math.ceil(0.1 * read.prompt)
    assert draft_prompt(read, 1) == read.prompt
    read = read_call(llava, Call(frames=4, size=(10, 10), text_tokens=10))
    assert (read.visual, read.text, read.prompt) == (784, 11, bucket(795, 32))
    assert read_call(qwen, Call(frames=16, visual_tokens=800)).visual == 800
    assert read_call(llava, Call(visual_tokens=400)).visual == 3 * 196
    assert read_call(qwen, Call(frames=0)).load(qwen) is None
    with pytest.raises(hj.HippoError, match="exceed the 32768 that the model allows"):
        read_call(llava, Call(frames=200))
    for wrong in ({"frames": -1}, {"batch": 0}, {"size": (0, 4)}, {"visual_tokens": 0}):
        with pytest.raises(hj.HippoError):
            Call(**wrong)


def test_more_devices_take_less_each() -> None:
    target, draft = published_config("qwen2.5-vl-72b"), published_config("qwen2.5-vl-3b")
    one, four, eight = (
        hj.plan_memory(target, draft, layout=Layout(n, n), memory=Memory(80 * GIB))
        for n in (1, 4, 8)
    )
    assert one.most > four.most > eight.most
    assert [plan.verdict for plan in (one, four, eight)] == ["does not fit", "fits", "fits"]
    apart = hj.plan_memory(target, draft, layout=Layout(4, 1, "meshes"))
    joined = hj.plan_memory(target, draft, layout=Layout(4, 1, "program"))
    assert apart.verdict == "unknown"
    assert len(apart.device) == 2 and apart.device[0] > apart.device[1]
    assert joined.device[0] > apart.device[0] + joined.roles[1].weights
    alone = hj.plan_memory(target, layout=Layout(4, 4))
    assert len(alone.roles) == 1 and alone.most < four.most - four.roles[1].weights


def test_the_verdict_leaves_a_tenth() -> None:
    config = published_config("qwen2.5-vl-3b")
    need = hj.plan_memory(config).most
    for size, verdict in (
        (need - 1, "does not fit"),
        (need, "tight"),
        (math.ceil(need / 0.9), "fits"),
    ):
        assert hj.plan_memory(config, memory=Memory(size)).verdict == verdict
    together = hj.plan_memory(config, layout=Layout(2, 2), memory=Memory(need, shared=True))
    assert together.most == 2 * together.device[0]
    with pytest.raises(hj.HippoError, match="do not fit"):
        hj.plan_memory(config, published_config("qwen3-vl-2b"))
    with pytest.raises(hj.HippoError, match="split over all of them"):
        Layout(3, 1)
