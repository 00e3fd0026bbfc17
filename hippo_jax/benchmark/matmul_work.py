"""How many operations the matrix products of a function do, counted in its jaxpr.

XLA's own count takes the body of a loop once, whatever the number of turns, and so misses most of a
long prompt's attention. Here a ``scan`` counts as often as it turns. Only products are counted:
they are what a matmul rate can be compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def matmul_operations(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiplications and additions of all products of ``function(*arguments)``, 2 m n k each.

    What a program computes and throws away (the masked half of a square of attention) counts too.
    Of the branches of a ``cond`` the longest counts.

    Raises:
        ValueError: a product inside a ``while`` whose turns nobody knows beforehand.
    """
    return _operations(jax.make_jaxpr(function)(*arguments).jaxpr)


def _operations(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, list(_inside(equation.params))
        if name == "dot_general":
            total += _product(equation)
        elif name == "scan":
            total += equation.params["length"] * sum(map(_operations, inner))
        elif name == "cond":
            total += max(map(_operations, inner))
        elif name == "while":
            if any(map(_operations, inner)):
                raise ValueError("products inside a while loop cannot be counted")
        else:
            total += sum(map(_operations, inner))
    return total


def _product(equation: Any) -> int:
    left = equation.invars[0].aval.shape
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[d] for d in contracted)


def _inside(value: Any) -> Iterator[Any]:
    """All jaxprs in the parameters of an equation."""
    if isinstance(value, ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, Jaxpr):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _inside(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _inside(item)
