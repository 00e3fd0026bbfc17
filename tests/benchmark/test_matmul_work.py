"""Products are counted as often as they are computed."""

import jax
import jax.numpy as jnp
import pytest

from hippo_jax.benchmark.matmul_work import matmul_operations

A, B = jnp.ones((3, 4)), jnp.ones((4, 5))
ONCE = 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: a @ b, ONCE),
        (lambda a, b: a.sum() + b.sum(), 0),
        (lambda a, b: jax.lax.map(lambda row: jax.nn.silu(row @ b), a), ONCE),
        (lambda a, b: jnp.einsum("xij,xjk->xik", a[None].repeat(7, 0), b[None].repeat(7, 0)), None),
        (jax.jit(lambda a, b: jax.checkpoint(lambda x: x @ b)(a)), ONCE),
        (lambda a, b: jax.lax.scan(lambda s, _: (s + a @ b, None), a @ b, None, 9)[0], 10 * ONCE),
        (lambda a, b: jax.lax.cond(a.sum() > 0, lambda: a @ b, lambda: jnp.zeros((3, 5))), ONCE),
    ],
)
def test_products(function, expected: int | None) -> None:
    assert matmul_operations(function, A, B) == (7 * ONCE if expected is None else expected)


def test_a_loop_without_a_known_end_is_refused() -> None:
    def function(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + a @ b, a @ b)

    with pytest.raises(ValueError, match="while"):
        matmul_operations(function, A, B)
