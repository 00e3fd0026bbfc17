"""Border tokens are counted on tables made by hand."""

import numpy as np
import pytest

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import VisualTable
from hippo_jax.studies.position_bias import border_shares, border_tokens


def table(*grids: tuple[int, int, int, int], padding: int = 3) -> VisualTable:
    """Rows of videos: ``(row, frames, height, width)`` each."""
    lines = [
        (row, 0, 0, f, y, x, frames, height, width, True)
        for row, frames, height, width in grids
        for f in range(frames)
        for y in range(height)
        for x in range(width)
    ]
    lines += [(0,) * 6 + (1, 1, 1, False)] * padding
    return VisualTable(*(np.array(column) for column in zip(*lines, strict=True)))


def test_the_border_is_a_ring_around_each_frame() -> None:
    found = border_tokens(table((0, 2, 4, 5)), 1)[:40].reshape(2, 4, 5)
    assert (found[0] == found[1]).all()
    assert found[0].astype(int).tolist() == [
        [1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1],
        [1, 0, 0, 0, 1],
        [1, 1, 1, 1, 1],
    ]
    wide = border_tokens(table((0, 1, 5, 6)), 2)[:30].reshape(5, 6)
    assert np.argwhere(~wide).tolist() == [[2, 2], [2, 3]]
    assert not border_tokens(table((0, 1, 3, 3)), 1)[9:].any()  # padding
    with pytest.raises(HippoError, match="at least one token"):
        border_tokens(table((0, 1, 3, 3)), 0)


def test_shares_are_of_each_row_s_own_tokens() -> None:
    rows = table((0, 1, 3, 3), (1, 2, 4, 4))
    kept = np.array([[4, 0, -1, -1], [5, 6, 0, 31]])  # 4, 5 and 6 are inside their frames
    of_kept, of_all = border_shares(rows, kept, 1)
    assert of_kept.tolist() == [0.5, 0.5]
    assert of_all.tolist() == [8 / 9, 12 / 16]
