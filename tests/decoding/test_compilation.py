"""What compiles a program, and what must not."""

import jax
import pytest
from support import tiny

from hippo_jax.decoding.generate import generate
from hippo_jax.decoding.sampling import Greedy

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled():
    """Programs compiled so far, as a growing list."""
    events: list[str] = []

    def listen(event, duration, **keywords):
        if event == COMPILED:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def inputs(units: int, text: int):
    """A video of ``units`` x 4 tokens and ``text`` tokens after it."""
    video = tiny.media("video", (units, 4, 4), 0.5, seed=units)
    return tiny.inputs([tiny.prompt(1, 2, video, *range(3, 3 + text))])


def run(*args, **keywords):
    generate(tiny.model(), *args, eos_token_ids=(), **keywords).tokens.block_until_ready()


def test_another_video_of_the_same_bucket_compiles_nothing(compiled):
    first, second = inputs(33, 6), inputs(34, 3)
    shapes = [[x.shape for x in jax.tree.leaves(i)] for i in (first, second)]
    assert shapes[0] == shapes[1]
    assert first.lengths != second.lengths
    run(first, max_new_tokens=5)
    assert compiled  # the counter counts
    compiled.clear()
    run(second, max_new_tokens=9)
    assert compiled == []
    run(second, max_new_tokens=9, sampling=Greedy(1.2))
    assert compiled  # another sampler is another program


def test_logits_of_another_video_compile_nothing(compiled):
    model, first, second = tiny.model(), inputs(33, 6), inputs(34, 3)
    model(first, last=True).block_until_ready()
    compiled.clear()
    model(second, last=True).block_until_ready()
    assert compiled == []
