"""The flat table cut into rows and frames."""

import numpy as np
from support import checks_scoring
from support import scoring_oracles as slow

from hippo_jax.scoring import rows as cut


def test_rows_and_windows():
    for seed in checks_scoring.SEEDS:
        rows, inputs = checks_scoring.prompts(seed)
        start, count = cut.row_spans(inputs.table, len(rows))
        width = max(int(np.max(count)), 1)
        lines, own = cut.row_windows(inputs.table, len(rows), width)
        ordinals = np.asarray(cut.row_ordinals(inputs.table, len(rows)))
        for b in range(len(rows)):
            expected = slow.of_row(rows, b)
            assert int(count[b]) == len(expected)
            assert np.asarray(lines)[b][np.asarray(own)[b]].tolist() == expected
            assert ordinals[expected].tolist() == list(range(len(expected)))
            assert not expected or int(start[b]) == expected[0]
        assert lines.dtype == np.int32
        assert np.max(lines) < len(inputs.table.valid)


def test_a_frame_is_known_by_its_first_token():
    for seed in checks_scoring.SEEDS:
        rows, inputs = checks_scoring.prompts(seed)
        starts = np.asarray(cut.frame_starts(inputs.table))
        for frame in slow.frames(rows):
            assert (starts[frame] == frame[0]).all()
        padding = np.flatnonzero(~inputs.table.valid)
        assert starts[padding].tolist() == padding.tolist()


def test_exact_division():
    checks_scoring.check_floor_share()
