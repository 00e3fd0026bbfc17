"""``VideoLM``: which logits are answered, and what must not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.oracles import close

from hippo_jax.architectures import patch_grid
from hippo_jax.architectures.parameters import values, with_values
from hippo_jax.errors import HippoError
from hippo_jax.inputs import model_inputs


@pytest.fixture(scope="module")
def batch():
    rows = tiny.batch_rows()
    return tiny.inputs(rows)


@pytest.fixture(scope="module")
def logits(batch):
    return np.asarray(tiny.model()(batch))


def test_logits_at_positions_and_last(batch, logits):
    model = tiny.model()
    columns = np.array([[0, 3], [5, 1], [4, 4], [2, 0]])
    some = model(batch, positions=columns)
    close(some, logits[np.arange(4)[:, None], columns], 1e-5)
    last = model(batch, last=True)
    lengths = np.asarray(batch.lengths)
    close(last[:, 0], logits[np.arange(4), lengths - 1], 1e-5)
    with pytest.raises(HippoError, match="not both"):
        model(batch, positions=columns, last=True)


def test_columns_are_those_of_the_ids_as_given(logits):
    """With padding in front, logits and ``positions`` move along with the tokens."""
    rows, model = tiny.batch_rows(), tiny.model()
    pads = tiny.left_padding(rows)
    moved = tiny.inputs(rows, left_padding=pads, width=logits.shape[1])
    got = model(moved)
    lengths = [len(row.ids) for row in rows]
    for b, length in enumerate(lengths):
        close(got[b, pads[b] :], logits[b, :length], 1e-5)
    columns = np.array(pads)[:, None] + 2
    close(model(moved, positions=columns)[:, 0], logits[:, 2], 1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_from_the_arrays_of_a_processor(side):
    """The mapping of a processor gives the very batch that the rows give."""
    rows = tiny.batch_rows()
    given = {name: array.numpy() for name, array in tiny.hf_inputs(rows).items()}
    pads = tiny.left_padding(rows)
    if side == "right":
        for name in ("input_ids", "attention_mask"):
            given[name] = np.stack(
                [np.roll(row, -pad) for row, pad in zip(given[name], pads, strict=True)]
            )
        pads = [0] * len(rows)
    got = model_inputs.ModelInputs.from_hf(tiny.model(), given)
    expected = tiny.inputs(rows, left_padding=pads, width=max(len(row.ids) for row in rows))
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_inside_a_program_the_bucket_is_answered(batch, logits):
    model = tiny.model()
    got = jax.jit(lambda m, i: m(i))(model, batch)
    assert got.shape[1] == batch.token_ids.shape[1] > logits.shape[1]
    for b, length in enumerate(np.asarray(batch.lengths)):
        close(got[b, :length], logits[b, :length], 1e-5)


def test_larger_buckets_change_nothing(monkeypatch, logits):
    """Twice the columns, patches, windows and frames, all of the surplus padding."""
    rows = tiny.batch_rows()
    for module in (model_inputs, patch_grid):
        plain = module.bucket
        monkeypatch.setattr(
            module, "bucket", lambda size, minimum=16, plain=plain: 2 * plain(size, minimum)
        )
    wide = tiny.inputs(rows)
    assert wide.token_ids.shape[1] >= 2 * logits.shape[1]
    got = tiny.model()(wide)
    for b, row in enumerate(rows):
        close(got[b, : len(row.ids)], logits[b, : len(row.ids)], 1e-5)


def test_padding_holds_numbers(batch):
    """Nothing that is computed on padding is NaN or infinite: it would spread through sums."""
    hidden, blocks = jax.jit(lambda m, i: m.run_prompt(i, m.encode_video(i)))(tiny.model(), batch)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((hidden, blocks)))


def test_text_without_any_video(logits):
    text = tiny.inputs([tiny.batch_rows()[2]])
    assert text.vision is None
    close(tiny.model()(text)[0], logits[2, :5], 1e-5)


def test_bfloat16_is_finite_and_close(batch, logits):
    model = tiny.model()
    half = with_values(model, {k: v.astype(jnp.bfloat16) for k, v in values(model).items()})
    got = np.asarray(half(batch))
    assert got.dtype == np.float32 and half.dtype == jnp.bfloat16
    for b, length in enumerate(np.asarray(batch.lengths)):
        ours, exact = got[b, :length], logits[b, :length]
        assert np.isfinite(ours).all()
        assert np.sqrt(np.mean((ours - exact) ** 2)) < 0.05 * exact.std()


def test_tokens_do_not_see_what_follows(batch, logits):
    """Another last token changes the last logits only."""
    ids = batch.token_ids.copy()
    rows, last = np.arange(4), np.asarray(batch.lengths) - 1
    ids[rows, last] = 77
    changed = model_inputs.ModelInputs(**{**vars(batch), "token_ids": ids})
    got = np.asarray(tiny.model()(changed))
    for b, end in enumerate(last):
        np.testing.assert_array_equal(got[b, :end], logits[b, :end])
        assert np.abs(got[b, end] - logits[b, end]).max() > 0.1
