"""Every family against transformers, part by part and as a whole, on tiny random models.

``support.families`` says what a family describes, ``support.checks_families`` what is checked.
"""

import pytest
from support import checks_families as checks
from support.families import cases

from hippo_jax.architectures.registry import FAMILIES


@pytest.mark.parametrize("case", cases(), ids=str)
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_family(case, check) -> None:
    check(case)


@pytest.mark.parametrize(
    "check", [check for case in cases() for check in case.modules], ids=lambda check: check.__name__
)
def test_modules(check) -> None:
    check()


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
@pytest.mark.parametrize("check", checks.LONGER, ids=lambda check: check.__name__)
def test_schedulers(case, check) -> None:
    check(case)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("style", ["saved", "modules", "hub"])
@pytest.mark.parametrize("case", cases(), ids=str)
def test_saved_by_transformers(tmp_path, case, style, tied) -> None:
    checks.check_saved(case, tmp_path, style, tied)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("case", cases(), ids=str)
def test_saved_by_us(tmp_path, case, tied) -> None:
    checks.check_exported(case, tmp_path, tied)


def test_described_families_are_registered() -> None:
    assert {case.name for case in cases()} <= set(FAMILIES)
