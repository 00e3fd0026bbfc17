"""Mutants of scoring and selection; each is noticed by a check that tests/scoring runs."""

import pytest
from support import checks_scoring as checks
from support.mutation import assert_noticed

from hippo_jax.scoring import attention, features, fusion, rows, selection, selectors

MUTANTS = [
    (
        "softmax over all keys taken for visual ones",
        (
            attention.row_relevance,
            'visual[:, None] if support == "visual" else slots <= columns[..., None]',
            "slots <= columns[..., None]",
        ),
        checks.check_relevance,
    ),
    (
        "a query does not see itself",
        (attention.row_relevance, "slots <= columns[..., None]", "slots < columns[..., None]"),
        checks.check_row_relevance,
    ),
    (
        "query heads read the wrong key heads",
        (attention.row_relevance, "n // kv, h)", "n // kv, h)[..., ::-1]"),
        checks.check_row_relevance,
    ),
    (
        "scores not scaled",
        (attention.row_relevance, " * h**-0.5", ""),
        checks.check_relevance,
    ),
    (
        "padded query rows count",
        (attention.row_relevance, "query_columns >= 0", "query_columns >= -1"),
        checks.check_relevance,
    ),
    (
        "sum over layers instead of mean",
        (attention.Relevance.scores, "/ self.layers", ""),
        checks.check_relevance,
    ),
    (
        "next frame taken for the previous",
        (
            features.change_between_frames,
            "lines - tokens, lines + tokens)",
            "lines + tokens, lines - tokens)",
        ),
        checks.check_temporal_change,
    ),
    (
        "a still video scores its rounding",
        (features._distances, "step < SAME", "step < 0"),
        checks.check_still_video,
    ),
    (
        "the crop wraps over the right border",
        (features.variance_in_crops, "(x < table.width)", "(x <= table.width)"),
        checks.check_spatial_variance,
    ),
    (
        "the token itself is in its crop",
        (features.variance_in_crops, "(dy, dx) > (0, 0)", "(dy, dx) >= (0, 0)"),
        checks.check_spatial_variance,
    ),
    (
        "sample variance",
        (features.variance_in_crops, "jnp.maximum(number, 1.0)", "jnp.maximum(number - 1, 1.0)"),
        checks.check_spatial_variance,
    ),
    (
        "normalised over the video instead of the frame",
        (fusion.normalise, "frame = frame_starts(table)", "frame = frame_starts(table) * 0"),
        checks.check_normalise,
    ),
    (
        "a constant frame divides by zero",
        (fusion.normalise, "<= FLAT *", "< 0 *"),
        checks.check_normalise,
    ),
    (
        "rounded down instead of up",
        (selection.kept_counts, "np.ceil(", "np.floor("),
        checks.check_kept_counts,
    ),
    (
        "NaN wins",
        (selection.sortable, "jnp.isnan(scores)", "jnp.isnan(scores) & False"),
        checks.check_select_tokens,
    ),
    (
        "padding wins",
        (selection.sortable, "jnp.iinfo(jnp.int32).min", "jnp.iinfo(jnp.int32).max"),
        checks.check_select_tokens,
    ),
    (
        "order not restored",
        (
            selection.select_tokens,
            "places = jnp.sort(places, axis=1)",
            "places = jnp.asarray(places)",
        ),
        checks.check_select_tokens,
    ),
    (
        "rows begin one row late",
        (rows.row_spans, "jnp.cumsum(count) - count", "jnp.cumsum(count)"),
        checks.check_select_tokens,
    ),
    (
        "frames share the budget of the frame before",
        (selection._per_frame, " - floor_share(budget, first, total)", ""),
        checks.check_select_tokens,
    ),
    (
        "products overflow",
        (rows.floor_share, "high = a * (b >> 9)", "return a * b // n"),
        checks.check_floor_share,
    ),
    (
        "random rows alike",
        (selectors._random, "jax.random.fold_in(key, row)", "key"),
        checks.check_random,
    ),
    (
        "stage two of SpecVLM spaced over all tokens",
        (selectors._specvlm, "remaining = own & ~first", "remaining = own"),
        checks.check_specvlm,
    ),
]


# One for each check in the ordinary tests, the others in the slow ones.
FIRST = {mutant[2]: mutant[0] for mutant in reversed(MUTANTS)}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        pytest.param(change, check, id=name, marks=() if FIRST[check] == name else pytest.mark.slow)
        for name, change, check in MUTANTS
    ],
)
def test_mutant_is_noticed(change, check) -> None:
    assert_noticed(change, check)
