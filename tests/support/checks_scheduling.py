"""Quick checks of models split over devices and of pairs on devices of their own. Mutants of these
parts are held against them."""

import dataclasses
import functools

import jax
import numpy as np

import hippo_jax as hj
from hippo_jax.architectures.sharding import Home
from hippo_jax.decoding.generate import Generation
from hippo_jax.placement.placement import role_homes
from hippo_jax.scheduling import two_meshes
from hippo_jax.scheduling.plan import make_plan, placement_of
from hippo_jax.scheduling.state import finish
from hippo_jax.weights.load import place_model
from support import pairs
from support.oracles import close
from support.pairs import Shape
from support.placements import PLACES, assert_same, placed
from support.speculative_cases import Case

PARALLEL = Shape("parallel", 3, 3, 0.5, (3, 9, 17, 22))


@functools.cache
def _expected(shape: Shape, seed: int) -> hj.Generation:
    return jax.device_get(Case(shape, seed).speculative())


def check_place(place: str, shape: Shape, seeds: int = 3) -> None:
    """The tokens and counters of one device."""
    for seed in range(seeds):
        expected = _expected(shape, seed)
        case = Case(shape, seed)
        case.pair = placed(case.pair, PLACES[place]())
        assert_same(case.speculative(), expected)


def check_one_program() -> None:
    """Groups of one size, parallel."""
    check_place("one program, 1 + 1", PARALLEL)


def check_more_devices() -> None:
    """A role of several devices."""
    check_place("one program, 3 + 1", PARALLEL, seeds=1)


def check_two_meshes() -> None:
    """Side by side, one thread enqueuing for both."""
    for seed in range(3):
        expected = _expected(PARALLEL, seed)
        case = Case(PARALLEL, seed)
        case.pair = placed(case.pair, PLACES["two meshes, 1 + 1"]())
        plan, limit = make_plan(
            case.pair, case.inputs, *case.arguments().values(), case.shape.config
        )
        roles = two_meshes.begin(
            case.pair.target,
            case.pair.draft,
            case.inputs,
            limit,
            case.key,
            plan,
            placement_of(case.pair),
        )
        state = two_meshes.run(*roles, threads=False)
        assert_same(Generation(*finish(state, plan)), expected)


def _inputs() -> hj.ModelInputs:
    return pairs.prompts(np.random.default_rng(5), 3)


def check_split_model() -> None:
    """Logits of four query heads that read one key head, on four devices."""
    own = pairs.config()
    text = dataclasses.replace(own.text, num_heads=8, num_kv_heads=2)
    config = dataclasses.replace(own, text=text)
    model = pairs.build(pairs.weights(3, config), config)
    mesh = jax.make_mesh((4,), ("tp",), devices=jax.devices()[:4])
    split = place_model(model, Home.of(mesh))
    inputs = _inputs()
    close(np.asarray(split(inputs, last=True)), np.asarray(model(inputs, last=True)), 2e-5)
    found = hj.scoring.attention_relevance(split, inputs)
    close(np.asarray(found), np.asarray(hj.scoring.attention_relevance(model, inputs)), 1e-5)


def check_unequal_groups() -> None:
    """Each model of a mesh of one and four devices, decoding alone."""
    devices = jax.devices()
    model = pairs.build(pairs.weights(3))
    inputs = _inputs()
    expected = np.asarray(model(inputs, last=True))
    for home in role_homes(devices[:1], devices[1:5]):
        close(np.asarray(place_model(model, home)(inputs, last=True)), expected, 2e-5)
