"""Checks of scores and selectors against the slow versions, for tests and for mutants."""

import copy
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

from hippo_jax.inputs import model_inputs
from hippo_jax.scoring import (
    attention_relevance,
    holistic_scores,
    select_tokens,
    spatial_variance,
    temporal_change,
)
from hippo_jax.scoring.attention import row_relevance
from hippo_jax.scoring.config import ScoringConfig
from hippo_jax.scoring.fusion import normalise
from hippo_jax.scoring.rows import floor_share
from hippo_jax.scoring.selection import kept_capacity, kept_counts
from hippo_jax.scoring.selectors import SelectionContext, selector_scores
from support import scoring_oracles as slow
from support import tiny

SEEDS = range(4)
RATIOS = (0.1, 0.4, 1.0)


@functools.cache
def prompts(seed: int):
    """Random rows (the shared batch for seed 0) and their inputs, in roomy buckets that most of
    them share, which spares compilation."""
    rows = tiny.batch_rows() if seed == 0 else tuple(slow.random_rows(seed))
    plain, roomy = model_inputs.bucket, {32: 192, 64: 448}

    def bucket(size: int, minimum: int = 16) -> int:
        return max(plain(size, minimum), roomy.get(minimum, 0))

    with mock.patch.object(model_inputs, "bucket", bucket):
        return rows, tiny.inputs(rows)


def size_of(inputs) -> int:
    return len(inputs.table.valid)


def noise(inputs, seed: int, dim: int | None = None, levels: int | None = None) -> np.ndarray:
    """Random float32 for all lines of the table; padding is loud, so that it would be noticed."""
    shape = (size_of(inputs),) if dim is None else (size_of(inputs), dim)
    rng = np.random.default_rng(seed)
    values = rng.random(shape) if levels is None else rng.integers(0, levels, shape)
    values = values.astype(np.float32)
    values[~inputs.table.valid] = 1e6
    return values


def same(ours, theirs, tolerance: float = 1e-5, smallest: float = 1e-9) -> None:
    """Equal up to a share of each number, and zero on padding."""
    ours = np.asarray(ours)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=tolerance, atol=smallest)
    assert (ours[len(theirs) :] == 0).all(), "padding has a score"


@functools.cache
def attention_of_transformers() -> list[list[np.ndarray]]:
    """Whole attention matrices ``[N, T, T]`` of each row and layer, padding cut off."""
    model = copy.deepcopy(tiny.hf_model())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(**tiny.hf_inputs(tiny.batch_rows()), output_attentions=True).attentions
    pads = tiny.left_padding(tiny.batch_rows())
    return [[layer[b, :, pad:, pad:].numpy() for layer in found] for b, pad in enumerate(pads)]


def check_relevance() -> None:
    """Against the attention that transformers computes, both supports, all and some layers."""
    rows = tiny.batch_rows()
    inputs = tiny.inputs(rows)
    for support in ("visual", "all"):
        for layers in (None, 1):
            expected = []
            for row, matrices in zip(rows, attention_of_transformers(), strict=True):
                slots = np.flatnonzero(np.isin(row.ids, (tiny.VIDEO, tiny.IMAGE)))
                if not len(slots):
                    continue
                after = np.stack(matrices[:layers])[:, :, slots[-1] + 1 :, slots]
                if support == "visual":
                    after = after / after.sum(-1, keepdims=True)
                expected.append(after.astype(np.float64).mean((0, 1, 2)))
            got = attention_relevance(tiny.model(), inputs, support=support, layers=layers)
            same(got, np.concatenate(expected), 2e-3, 1e-6)


def check_row_relevance() -> None:
    """One layer with loud queries: grouped heads, missing queries, a row without video."""
    rng = np.random.default_rng(0)
    q = 3 * rng.standard_normal((3, 11, 6, 8)).astype(np.float32)
    k = rng.standard_normal((3, 20, 2, 8)).astype(np.float32)
    visual = np.zeros((3, 20), bool)
    visual[0, 2:7] = visual[2, 1:9] = visual[2, 10] = True
    columns = np.full((3, 11), -1, np.int32)
    columns[0, :4] = [7, 8, 9, 10]
    columns[1, :1] = [5]
    columns[2, :9] = range(11, 20)
    for support in ("visual", "all"):
        got = row_relevance(q, k, columns, visual, support)
        expected = slow.row_relevance(q, k, columns, visual, support)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
        assert (np.asarray(got)[1] == 0).all()


def check_temporal_change() -> None:
    """Random tables; vectors far apart, and so near that 1 - cos in float32 would be noise."""
    for seed in SEEDS:
        rows, inputs = prompts(seed)
        for spread in (1.0, 1e-3):
            features = 1 + spread * noise(inputs, seed, 24)
            for neighbour in ("previous", "next", "both"):
                got = temporal_change(features, inputs.table, neighbour=neighbour)
                same(got, slow.temporal_change(features, rows, neighbour), 2e-3, 1e-12)


def check_spatial_variance() -> None:
    """Random tables, windows smaller and larger than the grids."""
    for seed in SEEDS:
        rows, inputs = prompts(seed)
        for spread, crop in ((1.0, 5), (1.0, 3), (1.0, 9), (1e-2, 5)):
            features = 1 + spread * noise(inputs, seed, 24)
            got = spatial_variance(features, inputs.table, crop=crop)
            same(got, slow.spatial_variance(features, rows, crop), 2e-3, 1e-14)


def check_odd_features() -> None:
    """Zero vectors, and bfloat16 numbers whose squares float32 cannot hold."""
    rows, inputs = prompts(0)
    features = noise(inputs, 1, 16) - 0.5
    features[::3] = features[~inputs.table.valid] = 0
    for scale in (1.0, 1e38, 1e-32):
        scaled = (features * scale).astype(ml_dtypes.bfloat16)
        wide = scaled.astype(np.float64) / scale
        got = temporal_change(scaled, inputs.table)
        same(got, slow.temporal_change(wide, rows, "previous"), 1e-4, 1e-7)
        got = spatial_variance(scaled, inputs.table)
        same(got, slow.spatial_variance(wide, rows, 5), 1e-4, 1e-7)


def check_still_video() -> None:
    """Frames that are equal, up to the rounding of float32, score exactly 0; one step of bfloat16
    in one number does not."""
    inputs = tiny.inputs([tiny.prompt(1, tiny.media("video", (3, 10, 14)), 2)])
    valid, tokens = inputs.table.valid, 5 * 7
    rng = np.random.default_rng(3)
    frame = rng.standard_normal((tokens, 301)).astype(np.float32)
    for still in (frame, np.broadcast_to(frame[:1], frame.shape)):
        features = np.full((len(valid), 301), np.nan, np.float32)
        features[valid] = np.tile(still, (3, 1))
        rounded = features * (1 + 2e-7 * rng.choice([-1, 1], features.shape)).astype(np.float32)
        for given in (features, rounded):
            assert (np.asarray(temporal_change(given, inputs.table)) == 0).all()
        if still is not frame:
            for given in (features, rounded):
                assert (np.asarray(spatial_variance(given, inputs.table)) == 0).all()
    features[valid, 100] = 1
    near = features.astype(ml_dtypes.bfloat16)
    near[tokens + 4, 100] *= ml_dtypes.bfloat16(1 + 2**-7)
    changed = np.asarray(temporal_change(near, inputs.table)) > 0
    # The first frame looks at the next one.
    assert np.flatnonzero(changed).tolist() == [4, tokens + 4, 2 * tokens + 4]
    assert (np.asarray(spatial_variance(near, inputs.table)) > 0).any()


def check_normalise() -> None:
    """Per frame and not over all; frames of one score give 0."""
    for seed in SEEDS:
        rows, inputs = prompts(seed)
        scores = noise(inputs, seed) - 0.3
        flat = slow.frames(rows)[-1]
        scores[flat] = 0.7 + 3e-8 * np.arange(len(flat))
        for normaliser in ("minmax", "zscore", "none"):
            got = normalise(scores, inputs.table, normaliser)
            same(got, slow.normalise(scores, rows, normaliser), 1e-4, 1e-5)
            if normaliser != "none":
                assert (np.asarray(got)[flat] == 0).all()


def check_holistic() -> None:
    """The weighted sum; a score without weight may be missing."""
    rows, inputs = prompts(0)
    count = len(slow.places(rows))
    given = [noise(inputs, seed) for seed in range(3)]
    for weights in ((1.0, 1.0, 1.0), (0.5, 2.0, 0.0), (0.0, 0.0, 3.0)):
        for normaliser in ("minmax", "zscore"):
            parts = [slow.normalise(scores[:count], rows, normaliser) for scores in given]
            expected = sum(w * part for w, part in zip(weights, parts, strict=True))
            scores = [s if w else None for s, w in zip(given, weights, strict=True)]
            keywords = {"weights": weights, "normaliser": normaliser}
            same(holistic_scores(*scores, inputs.table, **keywords), expected, 1e-4, 1e-5)
    assert (holistic_scores(*given, inputs.table) == holistic_scores(*given, inputs.table)).all()


def check_kept_counts() -> None:
    """Every n up to 3000 as Python computes it, and the width that shapes alone give."""
    for ratio in (0.1, 0.07, 1 / 3, 0.5, 0.9, 1.0, 1e-9, 1):
        counts = kept_counts(ratio, 3000)
        assert counts.dtype == np.int32
        assert counts.tolist() == [slow.kept(ratio, n) for n in range(3001)]
    assert kept_counts(0.1, 131072)[-1] == 13108  # 13107.2
    _, inputs = prompts(0)
    most = min(size_of(inputs), inputs.token_ids.shape[1])
    assert kept_capacity(0.3, inputs) == slow.kept(0.3, most)


def check_floor_share() -> None:
    """Exact up to 2^20 - 1, where the product needs 40 bits."""
    rng = np.random.default_rng(0)
    top = 2**20 - 1
    n = np.append(rng.integers(1, top, 5000), [1, 2, top, top, top])
    a = np.append(rng.integers(0, n[:-5] + 1), [1, 2, top, top, top - 1])
    b = np.append(rng.integers(0, n[:-5] + 1), [1, 1, top, 1, top - 1])
    # The quotient of two numbers that are both below n, and of one that is not.
    wide = rng.integers(0, top, len(n))
    for left, right in ((a, b), (wide, b)):
        got = floor_share(*(jnp.asarray(x, jnp.int32) for x in (left, right, n)))
        assert got.dtype == jnp.int32
        assert np.asarray(got).tolist() == (left * right // n).tolist()


def kept_rows(got) -> list[list[int]]:
    """The kept ordinals of each row; what lies behind them must be -1."""
    got = np.asarray(got)
    assert got.dtype == np.int32
    lists = [[int(i) for i in row if i >= 0] for row in got]
    for row, kept in zip(got, lists, strict=True):
        assert row.tolist() == kept + [-1] * (len(row) - len(kept))
    return lists


def check_select_tokens() -> None:
    """Random tables and ratios; many ties, NaN and infinities among the scores."""
    for seed in SEEDS:
        rows, inputs = prompts(seed)
        plain = noise(inputs, seed) - 0.5
        ties = noise(inputs, seed, levels=3) - 1
        ties[noise(inputs, seed + 50) < 0.2] = -0.0
        odd = noise(inputs, seed, levels=4)
        odd[noise(inputs, seed + 70) < 0.5] = np.nan
        odd[noise(inputs, seed + 90) < 0.3] = -np.inf
        odd[noise(inputs, seed + 80) < 0.1] = np.inf
        lost = np.full_like(odd, np.nan)
        for scores in (plain, ties, odd, lost):
            for ratio in RATIOS:
                for scope in ("global", "per_frame"):
                    got = select_tokens(scores, inputs, ratio, scope=scope)
                    assert got.shape == (len(rows), kept_capacity(ratio, inputs))
                    assert kept_rows(got) == slow.select(scores, rows, ratio, scope)


def ranked(inputs, ratio: float, relevance=None, features=None, **settings):
    """Scores of a selector."""
    config = ScoringConfig(**settings)
    return selector_scores(SelectionContext(inputs, ratio, relevance, features, config))


def check_uniform() -> None:
    for seed in SEEDS:
        rows, inputs = prompts(seed)
        for ratio in RATIOS:
            same(ranked(inputs, ratio, selector="uniform"), slow.uniform(rows, ratio))


def check_random() -> None:
    for seed in range(2):
        rows, inputs = prompts(seed)
        got = ranked(inputs, 0.1, selector="random", seed=seed)
        same(got, slow.noise(rows, seed), 0, 0)


def check_specvlm() -> None:
    """Random relevance, flat and peaked; masses that stage one reaches exactly; none at all."""
    for seed in SEEDS:
        rows, inputs = prompts(seed)
        flat, peaked = noise(inputs, seed), noise(inputs, seed).clip(0, 9) ** 40
        exact, nothing = noise(inputs, seed, levels=5), np.zeros(size_of(inputs), np.float32)
        cases = [
            (flat, 0.4),
            (peaked, 0.4),
            (peaked, 0.9),
            (exact, 0.5),
            (exact, 1.0),
            (nothing, 0.4),
        ]
        for relevance, mass in cases:
            for ratio in RATIOS:
                settings = {"selector": "specvlm", "specvlm_mass": mass}
                got = ranked(inputs, ratio, relevance, **settings)
                expected = slow.specvlm(relevance, rows, ratio, mass)
                same(got, expected)
                # As many picks as the budget: what is selected is what has a score.
                chosen = kept_rows(select_tokens(got, inputs, ratio))
                assert chosen == slow.select(expected, rows, ratio, "global")
                for b, row in enumerate(chosen):
                    own = slow.of_row(rows, b)
                    assert [o for o, i in enumerate(own) if expected[i]] == row


def check_holistic_selector() -> None:
    """Each setting reaches its score."""
    for seed in (0, 1):
        rows, inputs = prompts(seed)
        count = len(slow.places(rows))
        relevance, features = noise(inputs, seed), noise(inputs, seed, 8) - 0.5
        for selector, weights, crop, neighbour, normaliser in (
            ("holistic", (1.0, 1.0, 1.0), 5, "previous", "minmax"),
            ("draft", (1.0, 1.0, 1.0), 3, "next", "zscore"),
            ("holistic", (0.0, 2.0, 0.5), 3, "both", "minmax"),
            ("holistic", (1.5, 0.0, 0.0), 5, "previous", "none"),
        ):
            parts = (
                relevance[:count],
                slow.temporal_change(features, rows, neighbour),
                slow.spatial_variance(features, rows, crop),
            )
            expected = sum(
                weight * slow.normalise(part, rows, normaliser)
                for weight, part in zip(weights, parts, strict=True)
            )
            attention, temporal, spatial = weights
            got = ranked(
                inputs,
                0.1,
                relevance if attention else None,
                features if temporal or spatial else None,
                selector=selector,
                attention=attention,
                temporal=temporal,
                spatial=spatial,
                crop=crop,
                neighbour=neighbour,
                normaliser=normaliser,
            )
            same(got, expected, 1e-3, 1e-4)


def everything(inputs) -> dict[str, jax.Array]:
    """Scores by name, from the tiny model, in one program."""
    return _everything(tiny.model(), inputs)


@jax.jit
def _everything(model, inputs) -> dict[str, jax.Array]:
    features = model.encode_video(inputs)
    relevance = attention_relevance(model, inputs)
    seen = attention_relevance(model, inputs, support="all")
    found = {
        "relevance": relevance,
        "all": seen,
        "temporal": temporal_change(features, inputs.table, neighbour="both"),
        "spatial": spatial_variance(features, inputs.table),
    }
    for selector in ("holistic", "uniform", "random", "specvlm"):
        given = seen if selector == "specvlm" else relevance
        found[selector] = ranked(inputs, 0.2, given, features, selector=selector)
    return found
