"""One of two processes that run one program: a script, started by ``run_roles``.

Arguments: what to do, and a directory to leave word of it in.
"""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

import hippo_jax as hj
from hippo_jax.decoding.sampling import Sampling
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.processes import joined
from support import pairs
from support.pairs import Shape
from support.placements import placed

GREEDY = Shape("parallel", 3, 2, 0.5, (3, 9, 17))
SAMPLED = Shape("parallel", 2, 1, 0.5, sampler=Sampling(0.9))
LIMIT = 12
LATE = 40  # seconds: longer than processes wait for each other to connect
CALLS = 10_000  # of a process that is to be killed: it must not stay for ever


def tiny_pair() -> ModelPair:
    """A target and a draft that often agree, on the host's default device."""
    own = pairs.weights(5)
    return ModelPair(pairs.build(own), pairs.build(pairs.noisy(own, 0.02, 6)))


def greedy(pair: ModelPair) -> hj.Generation:
    """Inside the user's own ``jit``, with a limit that is traced."""
    return _greedy(pair, pairs.prompts(np.random.default_rng(1), GREEDY.batch), LIMIT)


@jax.jit
def _greedy(pair: ModelPair, inputs: hj.ModelInputs, limit: jax.Array) -> hj.Generation:
    return hj.hippo_generate(
        pair,
        inputs,
        max_new_tokens=limit,
        capacity=GREEDY.capacity,
        eos_token_ids=GREEDY.eos,
        config=GREEDY.config,
    )


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
    """Tokens, lengths and counters, read from the host."""
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(answer)]


def placement() -> hj.Placement:
    """The target on the devices of the first process, the draft on those of the second."""
    first, second = (
        [device for device in jax.devices() if device.process_index == index] for index in (0, 1)
    )
    return hj.Placement.on(first, second, one_program=True)


def meshes(pair: ModelPair) -> tuple[jax.sharding.Mesh, jax.sharding.Mesh]:
    """Of the target and of the draft."""
    target, draft = pair.placement.target, pair.placement.draft
    assert target is not None and draft is not None
    return target, draft


def main(task: str, word: Path) -> None:
    with joined() as role:
        pair = placed(tiny_pair(), placement())
        if task == "raise" and role == "draft":
            raise ValueError("the draft has lost its notes\nand its way")
        if task == "late" and role == "draft":
            time.sleep(LATE)
        found: dict[str, list] = {"devices": [mesh.size for mesh in meshes(pair)]}
        found["greedy"] = as_lists(greedy(pair))
        if task == "answer":
            found["sampled"] = as_lists(sampled(pair))
        # What one device says, each process one of the two.
        alone = {("target", "answer"): greedy, ("target", "greedy answer"): greedy}
        alone[("draft", "answer")] = sampled
        if (role, task) in alone:
            found["alone"] = as_lists(alone[(role, task)](tiny_pair()))
        (word / role).write_text(json.dumps(found))
        for _ in range(CALLS if task == "go on" else 0):
            as_lists(greedy(pair))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
