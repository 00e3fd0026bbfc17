"""Attention relevance: its numbers, its layers and its cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from support import checks_scoring, tiny
from support import scoring_oracles as slow

from hippo_jax.architectures import attention
from hippo_jax.architectures.attention import causal_attention
from hippo_jax.errors import HippoError
from hippo_jax.scoring import attention_relevance
from hippo_jax.scoring.attention import Relevance, row_relevance


def test_against_the_attention_of_transformers():
    checks_scoring.check_relevance()


def test_one_layer():
    checks_scoring.check_row_relevance()


def test_one_layer_block_by_block(monkeypatch):
    """Eight query rows at a time instead of eleven."""
    blocks = []
    scan = jax.lax.scan
    monkeypatch.setattr(attention, "CPU_SCORE_BYTES", 1)
    monkeypatch.setattr(
        jax.lax, "scan", lambda *args, **kw: blocks.append(len(args[2][0])) or scan(*args, **kw)
    )
    checks_scoring.check_row_relevance()
    assert blocks == [2, 2]


def test_queries_and_keys_of_each_layer():
    """The slow version over the queries and keys that a plain pass through the layers uses."""
    model, rows = tiny.model(), tiny.batch_rows()
    inputs = tiny.inputs(rows)

    @jax.jit
    def queries_and_keys(model, inputs):
        seen = []

        def attend(layer, q, k, v):
            seen.append((q, k))
            return causal_attention(q, k, v)

        x = model.embed_prompt(inputs, model.encode_video(inputs))
        model.decoder.run_layers(x, jnp.asarray(inputs.positions), attend)
        return seen

    seen = jax.device_get(queries_and_keys(model, inputs))
    assert len(seen) == 2
    columns, visual = inputs.query_columns, inputs.visual_index >= 0
    table = inputs.table
    for support in ("visual", "all"):
        layers = [
            slow.row_relevance(
                np.stack([own[at] for own, at in zip(q, columns, strict=True)]),
                k,
                columns,
                visual,
                support,
            )[table.row, table.slot]
            for q, k in seen
        ]
        for count in (1, 2):
            expected = np.mean(layers[:count], axis=0)[table.valid]
            got = attention_relevance(model, inputs, support=support, layers=count)
            checks_scoring.same(got, expected, 1e-3, 1e-7)
    # The weights of a row add up to 1 over the visual keys alone.
    whole = np.asarray(attention_relevance(model, inputs))
    sums = [whole[slow.of_row(rows, b)].sum() for b in range(4)]
    np.testing.assert_allclose(sums, [1, 1, 0, 1], rtol=1e-5)


def test_the_supports_and_layers_differ():
    inputs = tiny.inputs(tiny.batch_rows())
    own = inputs.table.valid
    found = [
        np.asarray(attention_relevance(tiny.model(), inputs, support=support, layers=layers))[own]
        for support in ("visual", "all")
        for layers in (1, 2)
    ]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert np.abs(one - other).max() > 1e-3


def test_inside_a_program_beside_a_prefill():
    """One pass gives logits and scores; watching changes no logit."""
    model, inputs = tiny.model(), tiny.inputs(tiny.batch_rows())

    @jax.jit
    def run(model, inputs):
        relevance = Relevance(inputs, "all")
        logits, _ = model.prefill(inputs, 4, observe=relevance.observe)
        return logits, relevance.scores()

    logits, scores = run(model, inputs)
    np.testing.assert_allclose(logits, model.prefill(inputs, 4)[0], rtol=1e-4, atol=1e-5)
    got = jax.jit(lambda m, i: attention_relevance(m, i, support="all"))(model, inputs)
    np.testing.assert_allclose(got, scores, rtol=1e-5, atol=1e-7)


def test_bfloat16_weights_give_float32_scores():
    model, inputs = tiny.model(), tiny.inputs(tiny.batch_rows())
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    got = np.asarray(attention_relevance(half, inputs))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, attention_relevance(model, inputs), atol=0.1)
    sums = [got[slow.of_row(tiny.batch_rows(), b)].sum() for b in (0, 1, 3)]
    np.testing.assert_allclose(sums, 1, rtol=1e-4)


def test_one_frame_and_text_alone():
    video = tiny.inputs([tiny.prompt(1, tiny.media("video", (1, 4, 4)), 2)])
    got = np.asarray(attention_relevance(tiny.model(), video))
    assert np.isfinite(got).all()
    assert got[:4].min() > 0
    text = tiny.inputs([tiny.batch_rows()[2]])
    assert attention_relevance(tiny.model(), text).shape == (0,)


@pytest.mark.parametrize("layers", [0, 3, -1, True, 1.0, "all"])
def test_layers_that_the_model_has_not(layers):
    inputs = tiny.inputs([tiny.batch_rows()[2]])
    with pytest.raises(HippoError, match="layers must be a whole number from 1 to 2"):
        attention_relevance(tiny.model(), inputs, layers=layers)


def test_other_refusals():
    inputs = tiny.inputs([tiny.batch_rows()[2]])
    with pytest.raises(HippoError, match="support must be one of 'visual', 'all'"):
        attention_relevance(tiny.model(), inputs, support="video")
    with pytest.raises(HippoError, match="no layer has been observed"):
        Relevance(inputs).scores()


def largest(jaxpr) -> int:
    """Elements of the largest array that the program makes, inner programs included."""
    found = 0
    for equation in jaxpr.eqns:
        found = max([found, *(variable.aval.size for variable in equation.outvars)])
        for inner in jaxprs_in_params(equation.params):
            found = max(found, largest(inner))
    return found


def test_no_square_of_scores(monkeypatch):
    """Neither all columns by all columns, nor a long text by all columns, nor layers on top."""
    monkeypatch.setattr(attention, "CPU_SCORE_BYTES", 4096)
    q, k = (jax.ShapeDtypeStruct((1, length, 4, 16), jnp.float32) for length in (400, 500))
    columns = jax.ShapeDtypeStruct((1, 400), jnp.int32)
    visual = jax.ShapeDtypeStruct((1, 500), bool)
    for support in ("visual", "all"):
        made = jax.make_jaxpr(row_relevance, static_argnums=4)(q, k, columns, visual, support)
        assert largest(made.jaxpr) < 50_000  # 400 x 500 for one head would be 200000

    row = tiny.prompt(1, tiny.media("video", (10, 12, 12)), *range(1, 120))
    inputs = dataclasses.replace(tiny.inputs([row]), vision=None)
    columns = inputs.token_ids.shape[1]
    assert columns >= 480

    def run(model, inputs):
        relevance = Relevance(inputs)
        model.prefill(inputs, 1, observe=relevance.observe)
        return relevance.scores()

    made = jax.make_jaxpr(run)(tiny.model(), inputs)
    assert largest(made.jaxpr) < columns * columns // 2


def test_twice_the_video_takes_twice_the_memory():
    """Compiled sizes of one layer's relevance, for shapes alone."""

    def used(columns: int) -> int:
        q = jax.ShapeDtypeStruct((1, 64, 4, 16), jnp.float32)
        k = jax.ShapeDtypeStruct((1, columns, 2, 16), jnp.float32)
        asked = jax.ShapeDtypeStruct((1, 64), jnp.int32)
        visual = jax.ShapeDtypeStruct((1, columns), bool)
        program = jax.jit(row_relevance, static_argnums=4).lower(q, k, asked, visual, "visual")
        return program.compile().memory_analysis().temp_size_in_bytes

    few, many = used(16384), used(32768)
    assert 0 < many <= 2.2 * few
    assert many < 4 * 32768**2 // 16


def test_later_layers_are_not_run():
    """Scores of the first layer alone cost fewer matrix products."""
    inputs = tiny.inputs(tiny.batch_rows())

    def products(layers: int) -> int:
        program = jax.jit(lambda m, i: attention_relevance(m, i, layers=layers))
        return program.lower(tiny.model(), inputs).compile().as_text().count("dot(")

    assert 0 < products(1) < products(2)
