"""Mutants of the families' own code: the check that each names must notice it."""

import functools
import inspect

import pytest
from support.families import cases
from support.mutation import assert_noticed

MUTANTS = [
    pytest.param(
        change,
        functools.partial(check, case) if inspect.signature(check).parameters else check,
        id=f"{case}: {name}",
    )
    for case in cases()
    for name, change, check in case.mutants
]


@pytest.mark.parametrize(("change", "check"), MUTANTS)
def test_mutant_is_noticed(change, check) -> None:
    assert_noticed(change, check)
