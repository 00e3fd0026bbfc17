"""The slow and obvious versions of the scores: float64 loops over one token after another.

They start from the prompts (``Row``), not from the table that the library reads.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from hippo_jax.inputs.model_inputs import Row
from support import tiny
from support.oracles import softmax


class Place(NamedTuple):
    """Where a visual token is: batch row, medium of the row, frame, y, x; and the grid's size."""

    row: int
    medium: int
    frame: int
    y: int
    x: int
    size: tuple[int, int, int]

    @property
    def where(self) -> tuple[int, int, int, int, int]:
        return self[:5]


def places(rows: Sequence[Row]) -> list[Place]:
    """All visual tokens in the order of the prompts."""
    found = []
    for b, row in enumerate(rows):
        for m, medium in enumerate(row.media):
            t, h, w = medium.grid[0], medium.grid[1] // 2, medium.grid[2] // 2
            found += [Place(b, m, *at, (t, h, w)) for at in np.ndindex(t, h, w)]
    return found


def random_rows(seed: int, batch: int = 4) -> list[Row]:
    """Prompts with none to three videos and images of random sizes; one at least is visual."""
    rng = np.random.default_rng(seed)
    rows = []
    for b in range(batch):
        parts: list = [int(rng.integers(1, 100))]
        for m in range(int(rng.integers(b == 0, 4))):
            image = rng.random() < 0.3
            t, h, w = 1 if image else rng.integers(1, 6), rng.integers(1, 5), rng.integers(1, 5)
            grid = (int(t), 2 * int(h), 2 * int(w))
            parts.append(tiny.media("image" if image else "video", grid, seed=seed + m))
            parts += [int(token) for token in rng.integers(1, 100, rng.integers(0, 4))]
        rows.append(tiny.prompt(*parts))
    return rows


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of float64 vectors; a zero vector has cosine 1 with another one and 0 with all else."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    if lengths == 0:
        return float(not a.any() and not b.any())
    return float(a @ b / lengths)


def temporal_change(features, rows: Sequence[Row], neighbour: str) -> np.ndarray:
    """``[n]`` for the n visual tokens."""
    tokens = places(rows)
    index = {token.where: i for i, token in enumerate(tokens)}
    out = np.zeros(len(tokens))
    for i, token in enumerate(tokens):
        row, medium, frame, y, x = token.where
        steps = {"previous": (-1, 1), "next": (1, -1), "both": (-1, 1)}[neighbour]
        others = [index.get((row, medium, frame + step, y, x)) for step in steps]
        others = [other for other in others if other is not None]
        if neighbour != "both":
            others = others[:1]
        if others:
            out[i] = np.mean([1 - cosine(features[i], features[other]) for other in others])
    return out


def spatial_variance(features, rows: Sequence[Row], crop: int) -> np.ndarray:
    """``[n]`` for the n visual tokens."""
    tokens = places(rows)
    index = {token.where: i for i, token in enumerate(tokens)}
    out = np.zeros(len(tokens))
    reach = crop // 2
    for i, token in enumerate(tokens):
        around = []
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                other = index.get((*token.where[:3], token.y + dy, token.x + dx))
                if other is not None and other != i:
                    around.append(cosine(features[i], features[other]))
        out[i] = np.var(around) if around else 0.0
    return out


def frames(rows: Sequence[Row]) -> list[list[int]]:
    """The tokens of each frame, all frames of all rows in order."""
    found: dict[tuple, list[int]] = {}
    for i, token in enumerate(places(rows)):
        found.setdefault(token.where[:3], []).append(i)
    return list(found.values())


def normalise(scores, rows: Sequence[Row], normaliser: str) -> np.ndarray:
    """``[n]``, frame by frame."""
    scores = np.asarray(scores, np.float64)
    out = np.zeros(len(scores))
    for frame in frames(rows):
        own = scores[frame]
        if normaliser == "none":
            out[frame] = own
        elif own.max() - own.min() > 1e-6 * np.abs(own).max():
            if normaliser == "minmax":
                out[frame] = (own - own.min()) / (own.max() - own.min())
            else:
                out[frame] = (own - own.mean()) / own.std()
    return out


def kept(ratio: float, n: int) -> int:
    return min(n, max(1, math.ceil(ratio * n))) if n else 0


def of_row(rows: Sequence[Row], b: int) -> list[int]:
    """The visual tokens of row ``b``."""
    return [i for i, token in enumerate(places(rows)) if token.row == b]


def best(scores, candidates: Sequence[int], count: int) -> list[int]:
    """The ``count`` best, the earlier first among equals; NaN is minus infinity."""
    order = sorted(candidates, key=lambda i: (math.inf if np.isnan(scores[i]) else -scores[i], i))
    return order[:count]


def select(scores, rows: Sequence[Row], ratio: float, scope: str) -> list[list[int]]:
    """Kept ordinals of each row."""
    out = []
    for b in range(len(rows)):
        own = of_row(rows, b)
        budget = kept(ratio, len(own))
        if scope == "global":
            chosen = best(scores, own, budget)
        else:
            chosen, done = [], 0
            for frame in frames(rows):
                if own and frame[0] in own:
                    seen = done + len(frame)
                    quota = budget * seen // len(own) - budget * done // len(own)
                    chosen += best(scores, frame, quota)
                    done = seen
        out.append(sorted(i - own[0] for i in chosen))
    return out


def uniform(rows: Sequence[Row], ratio: float) -> np.ndarray:
    """Scores ``[n]``: the budget grows by ``budget / n`` a token; a token that lifts it over the
    next whole number is kept."""
    out = np.zeros(len(places(rows)))
    for b in range(len(rows)):
        own = of_row(rows, b)
        budget, filled = kept(ratio, len(own)), 0
        for o, i in enumerate(own):
            if budget * (o + 1) // len(own) > filled:
                filled += 1
                out[i] = 1
    return out


def noise(rows: Sequence[Row], seed: int) -> np.ndarray:
    """Scores ``[n]`` of the random selector, token by token."""
    out = np.zeros(len(places(rows)), np.float32)
    for b in range(len(rows)):
        for o, i in enumerate(of_row(rows, b)):
            key = jax.random.key(seed, impl="threefry2x32")
            out[i] = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, b), o))
    return out


def specvlm(relevance, rows: Sequence[Row], ratio: float, mass: float) -> np.ndarray:
    """Scores ``[n]``: 2 for stage one, 1 for stage two, else 0."""
    relevance = np.asarray(relevance, np.float64)
    out = np.zeros(len(places(rows)))
    for b in range(len(rows)):
        own = of_row(rows, b)
        budget, total = kept(ratio, len(own)), relevance[own].sum()
        order = best(relevance, own, len(own))
        first: list[int] = []
        while relevance[first].sum() < mass * total and len(first) < budget:
            first.append(order[len(first)])
        out[first] = 2
        left = [i for i in own if i not in first]
        picks = budget - len(first)
        for j in range(picks):
            out[left[j * (len(left) - 1) // (picks - 1) if picks > 1 else 0]] = 1
    return out


def row_relevance(q, k, query_columns, visual, support: str) -> np.ndarray:
    """``[B, T]`` for ``q [B, R, N, H]`` and ``k [B, T, K, H]``: query by query, head by head."""
    q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
    out = np.zeros(visual.shape)
    group = q.shape[2] // k.shape[2]
    for b in range(len(q)):
        rows = [r for r in range(q.shape[1]) if query_columns[b, r] >= 0]
        for r in rows:
            columns = np.arange(k.shape[1])
            seen = columns <= query_columns[b, r] if support == "all" else visual[b]
            seen = np.flatnonzero(seen)
            if not len(seen):
                continue
            for n in range(q.shape[2]):
                weights = softmax(k[b, seen, n // group] @ q[b, r, n] / np.sqrt(q.shape[3]))
                out[b, seen] += weights / (len(rows) * q.shape[2])
    return np.where(visual, out, 0)


def padded(values, size: int) -> np.ndarray:
    """Scores of the visual tokens, and 0 on the padding lines."""
    values = np.asarray(values)
    out = np.zeros((size, *values.shape[1:]), values.dtype)
    out[: len(values)] = values
    return out
