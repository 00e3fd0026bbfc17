"""The slow and obvious versions: float64 attention with whole score matrices."""

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """``q [T, N, H]``, ``k, v [S, K, H]``, ``visible [T, S]``; query head n reads key head
    ``n // (N / K)``. A row that sees nothing gives zeros."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    repeat = q.shape[1] // k.shape[1]
    out = np.zeros_like(q)
    for n in range(q.shape[1]):
        for t in range(q.shape[0]):
            seen = np.flatnonzero(visible[t])
            if len(seen):
                scores = k[seen, n // repeat] @ q[t, n] / np.sqrt(q.shape[2])
                out[t, n] = softmax(scores) @ v[seen, n // repeat]
    return out


def close(ours: object, theirs: object, tolerance: float = 3e-4, what: str = "") -> None:
    """Equal up to ``tolerance`` of the largest entry of ``theirs`` (at least 1)."""
    theirs = np.asarray(theirs)
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(
        np.asarray(ours), theirs, rtol=0, atol=tolerance * scale, err_msg=what
    )
