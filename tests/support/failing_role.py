"""A role that fails in the middle of one program: a script, since its devices are lost with it.

Arguments: the role, the devices of target and draft, ``generate`` or ``stream``, and seconds if it
is not to fail but to be late. Prints what the call said, and how many seconds after the failure.
"""

import dataclasses
import sys
import time
from typing import Any

import jax
import numpy as np

import hippo_jax as hj
from hippo_jax.placement.placement import Placement
from hippo_jax.scheduling import one_program
from hippo_jax.scheduling.faults import RoleError
from support.pairs import Shape
from support.placements import placed
from support.speculative_cases import Case

SHAPE = Shape("parallel", 1, 1, 1.0, capacity=12)
CALL = 3  # of the callback that fails: in the loop, not in the prefill


def fail_in(role: str, late: float) -> list[float]:
    """Let what the role computes pass through the host, which fails, or sleeps if it is to be late;
    the times when it did."""
    times: list[float] = []

    def on_host(x: np.ndarray) -> np.ndarray:
        times.append(time.monotonic())
        if len(times) == CALL and late:
            time.sleep(late)
        elif len(times) >= CALL and not late:
            raise ValueError("out of luck\nand of time")
        return x

    def through_host(x: jax.Array) -> jax.Array:
        return jax.pure_callback(on_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    propose, verify = one_program.propose, one_program.verify

    def proposes(*arguments: Any) -> Any:
        proposal, blocks = propose(*arguments)
        return dataclasses.replace(proposal, chunk=through_host(proposal.chunk)), blocks

    def verifies(*arguments: Any) -> Any:
        logits, blocks = verify(*arguments)
        return through_host(logits), blocks

    if role == "draft":
        one_program.propose = proposes
    else:
        one_program.verify = verifies
    return times


def generate(placement: Placement) -> Any:
    case = Case(SHAPE, 1)
    case.limit = SHAPE.capacity
    case.pair = placed(case.pair, placement)
    return case.speculative()


def stream(placement: Placement) -> Any:
    pair = hj.load_pair("demo", placement=placement)
    inputs = hj.prepare_inputs(pair, None, "Describe the video.")
    return list(hj.stream(pair, inputs, max_new_tokens=16, config=SHAPE.config))


def main(role: str, target: str, draft: str, call: str, late: str = "0") -> None:
    times = fail_in(role, float(late))
    try:
        {"generate": generate, "stream": stream}[call](
            Placement.on(int(target), int(draft), one_program=True)
        )
        print("no failure")
    except RoleError as error:
        print(f"{time.monotonic() - times[-1]:.3f}\n{error.role}\n{error}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
