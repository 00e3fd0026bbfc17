"""Replicas give what one device gives, row by row, and compile once for each size."""

import jax
import numpy as np
import pytest
from support.tiny_replicas import prompt, tiny_replicas

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.replicas import HIPPO, PLAIN, Replicas
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.placement import Placement

ROWS = 7


@pytest.fixture(scope="module")
def alone(replicas: Replicas) -> list:
    """Each row by itself on one device."""
    calls = [replicas.inputs([prompt(seed)]) for seed in range(ROWS)]
    return [replicas.decode(HIPPO, inputs, 1).generation for inputs in calls]


def test_rows_of_one_size_share_a_program(replicas: Replicas, alone: list) -> None:
    assert len({replicas.size_of(prompt(seed)) for seed in range(ROWS)}) == 1
    before = replicas.compiled
    events: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: events.append(event)
    )
    try:
        for seed in (20, 21, 22):
            assert replicas.decode(HIPPO, replicas.inputs([prompt(seed)]), 1).seconds > 0
    finally:
        jax.monitoring.clear_event_listeners()
    assert replicas.compiled == before
    assert not [event for event in events if "backend_compile" in event]


@pytest.mark.parametrize(("count", "batch"), [pytest.param(4, 1, marks=pytest.mark.slow), (2, 2)])
def test_replicas_give_the_rows_of_one_device(alone: list, count: int, batch: int) -> None:
    """Also where the last call is not full."""
    several = tiny_replicas(count, batch)
    assert several.rows == 4
    prompts = [prompt(seed) for seed in range(ROWS)]
    sizes = {several.size_of(row): [] for row in prompts}  # type: ignore[var-annotated]
    for place, row in enumerate(prompts):
        sizes[several.size_of(row)].append(place)
    for places in sizes.values():
        for first in range(0, len(places), several.rows):
            own = places[first : first + several.rows]
            found = several.decode(HIPPO, several.inputs([prompts[i] for i in own]), len(own))
            assert len(found.generation.tokens) == len(own)
            for row, place in enumerate(own):
                single = alone[place]
                np.testing.assert_array_equal(found.generation.tokens[row], single.tokens[0])
                for name in ("rounds", "accepted", "judged", "runs", "visual_tokens"):
                    np.testing.assert_array_equal(
                        getattr(found.generation.stats, name)[row], getattr(single.stats, name)[0]
                    )


def test_both_ways_say_the_same(replicas: Replicas, alone: list) -> None:
    plain = replicas.decode(PLAIN, replicas.inputs([prompt(0)]), 1).generation
    np.testing.assert_array_equal(plain.tokens, alone[0].tokens)
    assert plain.stats is None


def test_rows_of_one_call_have_their_tokens_in_the_same_places() -> None:
    """In buckets alone they need not: those of several rows lie behind each other."""
    single, several = tiny_replicas(2, 1), tiny_replicas(1, 2)
    assert single.size_of(prompt(0, 2)) == single.size_of(prompt(0, 3))
    assert several.size_of(prompt(0, 2)) != several.size_of(prompt(0, 3))


def test_what_cannot_be_is_refused(replicas: Replicas) -> None:
    with pytest.raises(HippoError, match="99 replicas need as many devices, and there is 8"):
        tiny_replicas(99)
    with pytest.raises(HippoError, match="at least one replica"):
        tiny_replicas(0)
    pair = replicas.pair
    placed = ModelPair(pair.target, pair.draft, Placement.on(1, 1))
    with pytest.raises(HippoError, match="without a placement"):
        Replicas(placed, 2)
    long = Replicas(pair, max_new_tokens=500)
    with pytest.raises(HippoError, match="exceed the 512 that the model allows"):
        long.single(prompt(0))
