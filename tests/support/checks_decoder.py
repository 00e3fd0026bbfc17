"""Checks of decoder, attention and cache, for tests and for mutants."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures import attention
from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.cache import LayerCache
from support import oracles, reference, tiny
from support.oracles import close

POISON = 1e4  # what stands in slots that nobody may see; finite, so that leaks show as numbers


def causal(layer, q, k, v):
    """The ``attend`` of a whole prompt."""
    return attention.causal_attention(q, k, v)


def right_padded(x: np.ndarray, rows, columns: int) -> np.ndarray:
    """``[B, T, ...]`` padded on the left to ``[B, columns, ...]`` padded on the right."""
    out = np.zeros((x.shape[0], columns, *x.shape[2:]), x.dtype)
    for b, row in enumerate(rows):
        out[b, : len(row.ids)] = x[b, x.shape[1] - len(row.ids) :]
    return out


def check_decoder_layers() -> None:
    """Every layer by itself, fed what the reference fed it, in a batch of unequal rows."""
    rows, expected = tiny.batch_rows(), reference.forward("batch")
    batch, decoder = tiny.inputs(rows), tiny.model().decoder
    columns = batch.token_ids.shape[1]
    given = np.stack([right_padded(x, rows, columns) for x in expected.before])

    @jax.jit
    def run(x, positions):
        return [
            decoder.run_layers(x[i], positions, causal, start=i, stop=i + 1)[0]
            for i in range(len(decoder.layers))
        ]

    for index, got in enumerate(run(given, batch.positions)):
        theirs = right_padded(expected.after[index], rows, columns)
        for b, row in enumerate(rows):
            length = len(row.ids)
            close(got[b, :length], theirs[b, :length], what=f"layer {index}, row {b}")


def check_logits() -> None:
    """Teacher-forced logits at every token of the batch."""
    rows, expected = tiny.batch_rows(), reference.forward("batch").logits
    width = expected.shape[1]
    batch = tiny.inputs(rows, left_padding=tiny.left_padding(rows), width=width)
    got = tiny.model()(batch)
    assert got.shape == expected.shape and got.dtype == jnp.float32
    for b, row in enumerate(rows):
        close(got[b, -len(row.ids) :], expected[b, -len(row.ids) :], what=f"row {b}")


def check_prefill() -> None:
    """Prefill's logits are those of each row's last token, its cache holds every layer's keys and
    values of the whole prompt."""
    rows, expected = tiny.batch_rows(), reference.forward("batch").logits[:, -1]
    batch, model = tiny.inputs(rows), tiny.model()
    assert batch.token_ids.shape[1] > max(len(row.ids) for row in rows)
    logits, cache = jax.jit(lambda x: model.prefill(x, 8))(batch)
    close(logits, expected)
    _, blocks = jax.jit(lambda x: model.run_prompt(x, model.encode_video(x)))(batch)
    assert cache.capacity == 8 and len(cache.layers) == len(blocks)
    for layer, (k, v) in zip(cache.layers, blocks, strict=True):
        for b, row in enumerate(rows):
            length = len(row.ids)
            close(layer.prompt_k[b, :, :length].swapaxes(0, 1), k[b, :length], 1e-5)
            close(layer.prompt_v[b, :, :length].swapaxes(0, 1), v[b, :length], 1e-5)


def check_conversion() -> None:
    """The name table puts every number in its place (text only, converted anew)."""
    row = tiny.batch_rows()[2]
    model = tiny.convert(tiny.hf_model())
    expected = reference.forward("batch").logits[2, -len(row.ids) :]
    close(model(tiny.inputs([row]))[0], expected)


def check_causal_attention() -> None:
    """Whole prompts, at lengths around the borders of segments and blocks of rows."""
    rng = np.random.default_rng(0)
    for length, segment, bound in (
        (1, 4, 2**20),
        (7, 256, 2**20),  # one segment, one block
        (8, 4, 2**20),  # two segments
        (17, 4, 2**20),  # segments that do not divide
        (33, 4, 1),  # eight segments of one or fewer blocks of eight rows
        (27, 256, 1),  # one segment in blocks, the last one ragged
        (40, 16, 4 * 2 * 4 * 40 * 9),  # two segments, blocks of nine or more rows
    ):
        q = rng.standard_normal((2, length, 4, 8)).astype(np.float32)
        k, v = rng.standard_normal((2, 2, length, 2, 8)).astype(np.float32)
        visible = np.tril(np.ones((length, length), bool))
        expected = [oracles.attention(q[b], k[b], v[b], visible) for b in range(2)]
        with (
            mock.patch.object(attention, "MIN_CAUSAL_SEGMENT", segment),
            mock.patch.object(attention, "score_bytes", lambda bound=bound: bound),
        ):
            got = jax.jit(lambda q, k, v: attention.causal_attention(q, k, v))(q, k, v)
        close(got, np.stack(expected), 1e-5, f"length {length}, segment {segment}")


def check_segment_attention() -> None:
    """Disjoint segments of several sizes: all at once, in groups, and in blocks of rows."""
    rng = np.random.default_rng(1)
    patches, sizes, longest = 31, (12, 1, 7, 11), 12
    order = rng.permutation(patches)
    members = np.full((5, longest), -1, np.int32)  # the last segment is padding
    place = np.zeros(patches, np.int32)
    visible = np.zeros((patches, patches), bool)
    start = 0
    for index, size in enumerate(sizes):
        own = order[start : start + size]
        members[index, :size] = own
        place[own] = index * longest + np.arange(size)
        visible[np.ix_(own, own)] = True
        start += size
    q, k, v = rng.standard_normal((3, patches, 2, 8)).astype(np.float32)
    expected = oracles.attention(q, k, v, visible)
    one = 4 * 2 * longest * longest
    for bound in (2**20, 2 * one, one, one - 1, 1):
        with mock.patch.object(attention, "score_bytes", lambda bound=bound: bound):
            given = map(jnp.asarray, (q, k, v, members[:2], members[2:], place))
            got = jax.jit(
                lambda q, k, v, a, b, place: attention.segment_attention(q, k, v, (a, b), place)
            )(*given)
        close(got, expected, 1e-5, f"bound {bound}")


def check_cached_attention() -> None:
    """A block against prompt and tail of unequal rows, everything hidden poisoned."""
    rng = np.random.default_rng(2)
    prompt_lengths, tail_lengths = np.array([9, 2, 0], np.int32), np.array([0, 3, 4], np.int32)
    q = rng.standard_normal((3, 3, 4, 8)).astype(np.float32)
    k, v = rng.standard_normal((2, 3, 3, 2, 8)).astype(np.float32)
    prompt = rng.standard_normal((2, 3, 9, 2, 8)).astype(np.float32)
    tail = rng.standard_normal((2, 3, 6, 2, 8)).astype(np.float32)
    expected = []
    for b, (p, t) in enumerate(zip(prompt_lengths, tail_lengths, strict=True)):
        keys, values = (
            np.concatenate([prompt[i, b, :p], tail[i, b, :t], (k, v)[i][b]]) for i in (0, 1)
        )
        visible = np.tri(3, p + t + 3, p + t, dtype=bool)
        expected.append(oracles.attention(q[b], keys, values, visible))
        prompt[:, b, p:] = POISON
        tail[:, b, t:] = POISON
    layer = LayerCache(*(x.transpose(0, 2, 1, 3) for x in (*prompt, *tail)))
    got = attention.cached_attention(q, k, v, layer, prompt_lengths, tail_lengths)
    close(got, np.stack(expected), 1e-5)


def check_cache_write() -> None:
    """New tokens land in their slots and nowhere else: one slot for all rows, or one a row."""
    empty = jnp.zeros((3, 4, 2, 8))
    cache = kv.from_prompt([(empty, empty)], jnp.array([4, 2, 0]), capacity=6)
    new = np.random.default_rng(3).standard_normal((2, 3, 2, 2, 8)).astype(np.float32)
    for slot in (np.int32(3), np.array([0, 4, 2], np.int32)):
        layer = kv.write(cache, [tuple(new)], jnp.asarray(slot)).layers[0]
        expected = np.zeros((2, 3, 2, 6, 8), np.float32)
        for b, at in enumerate(np.broadcast_to(slot, 3)):
            expected[:, b, :, at : at + 2] = new[:, b].transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(np.stack([layer.tail_k, layer.tail_v]), expected)
        np.testing.assert_array_equal(layer.prompt_k, cache.layers[0].prompt_k)


def check_blocks_against_full_pass() -> None:
    """``forward_block`` over a prompt and a tail gives the logits of one pass over everything.

    Rows have prompts and tails of their own lengths and positions on three axes that have nothing
    to do with cache slots. Slots past the lengths are poisoned.
    """
    rng = np.random.default_rng(4)
    model = tiny.model()
    ids = rng.integers(1, 180, (3, 24), dtype=np.int32)
    positions = np.cumsum(rng.integers(0, 4, (3, 3, 24), dtype=np.int32), axis=-1, dtype=np.int32)
    decoder = model.decoder

    @jax.jit
    def whole(ids, positions):
        hidden, blocks = decoder.run_layers(decoder.embed(ids), positions, causal)
        return decoder.logits(hidden), blocks

    @jax.jit
    def block(ids, positions, cache, lengths):
        return model.forward_block(ids, positions, cache, lengths)

    logits, blocks = jax.device_get(whole(ids, positions))
    prompts, tails, capacity = np.array([11, 3, 14]), np.array([2, 0, 5]), 8

    def part(x, start, stop, size):
        """``[B, T, K, H]`` columns ``start[b] .. stop[b]`` of each row, poison behind them."""
        out = np.full((3, size, *x.shape[2:]), POISON, np.float32)
        for b in range(3):
            out[b, : stop[b] - start[b]] = x[b, start[b] : stop[b]]
        return out

    nothing = np.zeros(3, int)
    prompt = [tuple(part(x, nothing, prompts, 14) for x in pair) for pair in blocks]
    tail = [tuple(part(x, prompts, prompts + tails, capacity) for x in pair) for pair in blocks]
    cache = kv.from_prompt(
        [tuple(map(jnp.asarray, pair)) for pair in prompt], jnp.asarray(prompts), capacity
    )
    cache = kv.write(cache, [tuple(map(jnp.asarray, pair)) for pair in tail], jnp.int32(0))
    columns = (prompts + tails)[:, None] + np.arange(5)
    lengths = jnp.asarray(tails, jnp.int32)
    rows = np.arange(3)[:, None]
    got, new = block(ids[rows, columns], positions[:, rows, columns], cache, lengths)
    close(got, logits[rows, columns], what="a block of five")
    close(new[1][0], blocks[1][0][rows, columns], what="keys of the last layer")
    # Two tokens, written at each row's own slot, then three more: the same as five at once.
    first = columns[:, :2]
    _, new = block(ids[rows, first], positions[:, rows, first], cache, lengths)
    cache, rest = kv.write(cache, new, lengths), columns[:, 2:]
    got, _ = block(ids[rows, rest], positions[:, rows, rest], cache, lengths + 2)
    close(got, logits[rows, rest], what="after a write at each row's slot")
