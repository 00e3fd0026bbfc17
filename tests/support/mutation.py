"""Mutants: a function with a piece of its source exchanged, put wherever the original is held."""

import dataclasses
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable
from types import FunctionType

import pytest

from hippo_jax.architectures import registry


def edited(function: FunctionType, old: str, new: str) -> FunctionType:
    """``function`` compiled from its source with ``old`` replaced by ``new``."""
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source, f"adapt this mutant: {function.__qualname__} has no {old!r} any more"
    future = vars(sys.modules[function.__module__]).get("annotations")
    flags = 0 if future is None else future.compiler_flag
    code = compile(source.replace(old, new), f"<mutant of {function.__qualname__}>", "exec", flags)
    namespace: dict[str, object] = {}
    exec(code, function.__globals__, namespace)
    return namespace[function.__name__]


def ours() -> list[tuple[object, str, object]]:
    """Every attribute of every loaded module of the package and of the checks: holder, name,
    value."""
    roots = ("hippo_jax", "support")
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] in roots]
    return [(module, name, value) for module in modules for name, value in vars(module).items()]


def forget_programs() -> None:
    """Drop what the package's jitted functions have compiled and traced."""
    for _, _, value in ours():
        if hasattr(value, "clear_cache") and hasattr(value, "lower"):
            value.clear_cache()


def mutate(patch: pytest.MonkeyPatch, target: FunctionType, old: str, new: str) -> None:
    """Put the edited function wherever the original is: modules, its class, the family table."""
    mutant: Callable = edited(target, old, new)
    places = 0
    for holder, name, value in ours():
        if value is target:
            patch.setattr(holder, name, mutant)
            places += 1
        elif inspect.isclass(value) and vars(value).get(target.__name__) is target:
            patch.setattr(value, target.__name__, mutant)
            places += 1
    for name, family in list(registry.FAMILIES.items()):
        fields = {f.name: getattr(family, f.name) for f in dataclasses.fields(family)}
        if target in fields.values():
            swapped = {key: mutant if value is target else value for key, value in fields.items()}
            patch.setitem(registry.FAMILIES, name, registry.Family(**swapped))
            places += 1
    assert places, f"nobody holds {target.__qualname__}"
    forget_programs()


@functools.cache
def passes(check: Callable[[], None]) -> bool:
    """The check holds for the code as it is."""
    check()
    return True


def assert_noticed(change: tuple[FunctionType, str, str], check: Callable[[], None]) -> None:
    """``check`` holds for the code as it is and fails under the ``change``."""
    assert passes(check)
    try:
        with pytest.MonkeyPatch.context() as patch:
            mutate(patch, *change)
            with pytest.raises(AssertionError):
                check()
    finally:
        forget_programs()
