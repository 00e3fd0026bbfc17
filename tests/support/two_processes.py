"""One of two processes that run one program: a script, started by ``run_roles``.

Arguments: what to do, and where to leave word of it.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from support import pairs
from support.pairs import Shape
from support.placements import placed

import hippo_jax as hj
from hippo_jax.decoding.sampling import Sampling
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.processes import joined

GREEDY = Shape("parallel", 3, 2, 0.5, (3, 9, 17))
SAMPLED = Shape("parallel", 2, 1, 0.5, sampler=Sampling(0.9))
LIMIT = 12
TRIES = 100_000  # calls of a process that is to be killed: it must not stay for ever


def tiny_pair() -> ModelPair:
    """Draft and target that often agree."""
    own = pairs.weights(5)
    return ModelPair(pairs.build(own), pairs.build(pairs.noisy(own, 0.05, 6)))


def greedy(pair: ModelPair) -> hj.Generation:
    """Inside the user's own ``jit``, with a limit that is traced."""

    @jax.jit
    def answer(pair: ModelPair, inputs: hj.ModelInputs, limit: jax.Array) -> hj.Generation:
        return hj.hippo_generate(
            pair,
            inputs,
            max_new_tokens=limit,
            capacity=GREEDY.capacity,
            eos_token_ids=GREEDY.eos,
            config=GREEDY.config,
        )

    inputs = pairs.prompts(np.random.default_rng(1), GREEDY.batch)
    return answer(pair, inputs, LIMIT)


def sampled(pair: ModelPair) -> hj.Generation:
    """Called plainly."""
    return hj.hippo_generate(
        pair,
        pairs.prompts(np.random.default_rng(2), SAMPLED.batch),
        max_new_tokens=LIMIT,
        capacity=SAMPLED.capacity,
        sampling=SAMPLED.sampler,
        key=jax.random.key(3),
        eos_token_ids=(),
        config=SAMPLED.config,
    )


def as_lists(answer: hj.Generation) -> list:
    """All arrays of an answer, read from the host."""
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(answer)]


def pair_of_processes() -> ModelPair:
    """The target on the devices of the first process, the draft on those of the second."""
    first, second = (
        [device for device in jax.devices() if device.process_index == index] for index in (0, 1)
    )
    return placed(tiny_pair(), hj.Placement.on(first, second, one_program=True))


def main(task: str, word: Path) -> None:
    with joined() as role:
        if task == "raise" and role == "draft":
            raise ValueError("the draft has lost its notes")
        pair = pair_of_processes()
        if task == "late" and role == "draft":
            time.sleep(40)
        if task == "answer":
            print(
                json.dumps({"greedy": as_lists(greedy(pair)), "sampled": as_lists(sampled(pair))})
            )
        elif task == "go on":
            for _ in range(TRIES):
                as_lists(greedy(pair))
                (word / role).touch()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
