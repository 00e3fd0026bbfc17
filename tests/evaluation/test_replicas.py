"""Replicas, and a pair over several devices, give what one device gives, row by row."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from support.placements import PLACES, placed
from support.tiny_replicas import NEW_TOKENS, prompt, tiny_replicas

import hippo_jax as hj
from hippo_jax.decoding.generate import Generation
from hippo_jax.errors import HippoError
from hippo_jax.evaluation.calls import HIPPO, PLAIN, Calls
from hippo_jax.evaluation.placed import PlacedPair
from hippo_jax.evaluation.replicas import Replicas
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.placement import Placement

PROMPTS = [prompt(seed) for seed in range(7)]
COUNTERS = ("rounds", "round_tokens", "accepted", "judged", "runs", "visual_tokens", "kept_indices")


def answers(several: Calls) -> dict[int, Generation]:
    """Of each prompt, in calls of one size; the last of them are not full."""
    sizes = defaultdict(list)
    for place, row in enumerate(PROMPTS):
        sizes[several.size_of(row)].append(place)
    found = {}
    for places in sizes.values():
        for first in range(0, len(places), several.rows):
            own = places[first : first + several.rows]
            call = several.decode(HIPPO, several.inputs([PROMPTS[i] for i in own]), len(own))
            assert len(call.generation.tokens) == len(call.generation.stats.rounds) == len(own)
            found |= {place: (call.generation, row) for row, place in enumerate(own)}
    return found


def tiny_placed(placement: Placement, batch: int = 1) -> PlacedPair:
    """The same pair and settings as ``tiny_replicas``."""
    known = tiny_replicas()
    return PlacedPair(placed(known.pair, placement), batch, known.max_new_tokens, known.config)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny_replicas(2, 2),
        lambda: tiny_placed(PLACES["one mesh"](), 2),
        lambda: tiny_placed(PLACES["two meshes, 1 + 1"]()),
        pytest.param(lambda: tiny_placed(PLACES["two meshes, 3 + 2"](), 3), marks=pytest.mark.slow),
    ],
    ids=["replicas", "one mesh", "two meshes", "two meshes, three rows"],
)
def test_calls_say_what_plain_decoding_on_one_device_says(make: Callable[[], Calls]) -> None:
    several, alone = make(), tiny_replicas().pair.target
    for place, (found, row) in answers(several).items():
        expected = hj.generate(alone, several.single(PROMPTS[place]), max_new_tokens=NEW_TOKENS)
        np.testing.assert_array_equal(found.tokens[row], expected.tokens[0])
        assert found.lengths[row] == expected.lengths[0]
        assert several.rows >= len(found.tokens)


def test_plain_decoding_of_a_placed_pair_is_the_target_s_on_its_devices() -> None:
    several = tiny_placed(PLACES["two meshes, 1 + 1"]())
    inputs = several.inputs(PROMPTS[:1])
    assert inputs.lengths.devices() == set(several.pair.target.home.mesh.devices.flat)
    found = several.decode(PLAIN, inputs, 1)
    expected = several.decode(HIPPO, inputs, 1).generation
    np.testing.assert_array_equal(found.generation.tokens, expected.tokens)
    assert found.seconds > 0 and found.generation.stats is None


@pytest.mark.slow
@pytest.mark.parametrize(("count", "batch"), [(4, 1), (2, 2), (1, 3)])
def test_replicas_count_what_one_device_counts(count: int, batch: int) -> None:
    alone = answers(tiny_replicas())
    for place, (found, row) in answers(tiny_replicas(count, batch)).items():
        single, first = alone[place]
        np.testing.assert_array_equal(found.tokens[row], single.tokens[first])
        for name in COUNTERS:
            own, known = getattr(found.stats, name)[row], getattr(single.stats, name)[first]
            np.testing.assert_array_equal(own[own >= 0], known[known >= 0], err_msg=name)


def test_rows_of_one_call_have_their_tokens_in_the_same_places() -> None:
    """In buckets alone they need not: those of several rows lie behind each other."""
    single, several = tiny_replicas(2, 1), tiny_replicas(1, 2)
    assert single.size_of(prompt(0, 2)) == single.size_of(prompt(0, 3))
    assert several.size_of(prompt(0, 2)) != several.size_of(prompt(0, 3))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(HippoError, match="99 replicas need as many devices, here are 8"):
        tiny_replicas(99)
    with pytest.raises(HippoError, match="at least one replica"):
        tiny_replicas(0)
    pair = tiny_replicas().pair
    apart = ModelPair(pair.target, pair.draft, Placement.on(1, 1))
    with pytest.raises(HippoError, match="without a placement"):
        Replicas(apart, 2)
    with pytest.raises(HippoError, match="has no placement"):
        PlacedPair(pair)
    with pytest.raises(HippoError, match="at least one row"):
        PlacedPair(apart, 0)
    long = Replicas(pair, max_new_tokens=500)
    with pytest.raises(HippoError, match="exceed the 512 that the model allows"):
        long.single(prompt(0))
