"""Checks that the answer is the target's own, whatever the draft does: small shapes, few cases."""

from hippo_jax.decoding.sampling import Greedy
from support.pairs import Shape
from support.speculative_cases import EOS, FEW, MIXED, run_cases


def check_sequential() -> None:
    """Greedy, ends inside runs, unequal rows."""
    run_cases(Shape("sequential", 3, 3, 0.3, EOS[0]), FEW)


def check_parallel() -> None:
    """The same for the parallel schedule."""
    run_cases(Shape("parallel", 3, 3, 0.3, EOS[0]), FEW)


def check_parallel_sampled() -> None:
    """Gumbel coupling with every processor, the repetition penalty position by position."""
    run_cases(Shape("parallel", 3, 3, 0.5, EOS[0], MIXED), FEW)


def check_sequential_sampled() -> None:
    """The same for the sequential schedule."""
    run_cases(Shape("sequential", 3, 3, 0.5, EOS[0], MIXED), FEW)


def check_penalty() -> None:
    """Tokens of a round count as seen for the next ones of the same round, refused ones never."""
    run_cases(Shape("sequential", 4, 3, 1.0, (), Greedy(1.5)), FEW)
