"""``hippo_generate`` and ``stream`` as users call them: purity, what compiles, odd inputs."""

import dataclasses
import functools
import json
import shutil
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import pairs
from support.pairs import Shape
from support.speculative_cases import Case

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.inputs.model_inputs import Row, assemble

SLOW = pytest.mark.slow
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def pair() -> hj.ModelPair:
    return hj.load_pair("demo")


@pytest.fixture(scope="module")
def inputs(pair) -> hj.ModelInputs:
    return hj.prepare_inputs(pair, hj.clip(), "Describe the video.")


@pytest.fixture(scope="module")
def plain(pair, inputs) -> hj.Generation:
    return hj.generate(pair.target, inputs, max_new_tokens=60)


@pytest.fixture(scope="module")
def result(pair, inputs) -> hj.Generation:
    return hj.hippo_generate(pair, inputs, max_new_tokens=60)


def primitives(jaxpr) -> set[str]:
    """Names of all primitives, those of inner programs too."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found |= primitives(inner)
    return found


def test_the_embedded_pair_says_what_its_target_says(plain, result) -> None:
    np.testing.assert_array_equal(result.tokens, plain.tokens)
    np.testing.assert_array_equal(result.lengths, plain.lengths)
    stats = result.stats
    assert stats.visual_tokens.tolist() == [324] and stats.kept_visual_tokens.tolist() == [33]
    kept = np.asarray(stats.kept_indices)[0]
    assert (np.diff(kept[kept >= 0]) > 0).all() and (kept >= 0).sum() == 33
    assert stats.tokens_per_round > 3 and stats.acceptance_rate > 0.8
    assert stats.mat_with_correction == stats.mat + 1
    assert int(stats.round_tokens[0]) == int(result.lengths[0]) - 1


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_one_program_with_a_loop_and_no_callback(pair, inputs, schedule) -> None:
    config = hj.HippoConfig(schedule=schedule)
    jaxpr = jax.make_jaxpr(
        lambda p, i: hj.hippo_generate(p, i, max_new_tokens=20, config=config).tokens
    )(pair, inputs)
    found = primitives(jaxpr.jaxpr)
    assert "while" in found
    assert not [name for name in found if "callback" in name or "infeed" in name]


def test_jit_with_configs_as_arguments(pair, inputs, result) -> None:
    """Configs and samplers are pytrees without leaves: no ``static_argnames`` are needed."""
    call = jax.jit(hj.hippo_generate)  # arguments that are numbers would be traced: see below
    found = call(pair, inputs, config=hj.HippoConfig(), sampling=hj.Greedy())
    length = int(result.lengths[0])
    np.testing.assert_array_equal(found.tokens[:, :length], result.tokens[:, :length])
    traced = call(pair, inputs, config=hj.HippoConfig(), sampling=hj.Greedy())
    assert traced.stats.rounds.shape == (1,)


def test_pmap_over_devices() -> None:
    """As in the contract: weights shared, inputs split, keys split."""
    case = Case(Shape("parallel", 3, 2, 0.3, (3,), hj.Sampling(0.8)), 0)
    other = Case(Shape("parallel", 3, 2, 0.3, (3,), hj.Sampling(0.8)), 1)
    split = jax.tree.map(lambda *x: np.stack(x), case.inputs, other.inputs)
    keys = jax.random.split(jax.random.key(4), 2)
    call = functools.partial(
        hj.hippo_generate,
        max_new_tokens=12,
        sampling=hj.Sampling(0.8),
        eos_token_ids=(3,),
        config=case.shape.config,
    )
    found = jax.pmap(lambda p, i, k: call(p, i, key=k), in_axes=(None, 0, 0))(
        case.pair, split, keys
    )
    assert found.tokens.shape[:2] == (2, 2)
    for device, inputs in enumerate((case.inputs, other.inputs)):
        expected = hj.generate(
            case.pair.target,
            inputs,
            max_new_tokens=12,
            sampling=hj.Sampling(0.8),
            eos_token_ids=(3,),
            key=keys[device],
        )
        np.testing.assert_array_equal(found.tokens[device], expected.tokens)
    assert found.stats.tokens_per_round > 0  # pooled over the devices' axis


def test_another_video_limit_or_key_compiles_nothing() -> None:
    shape = Shape("sequential", 3, 2, 0.3, (3,), hj.Sampling(0.9))
    events: list[str] = []
    Case(shape, 1).speculative().tokens.block_until_ready()
    cases = [Case(shape, seed) for seed in (2, 3, 4)]

    def listen(event, duration, **keywords):
        if event == COMPILED:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for case in cases:
            case.speculative().tokens.block_until_ready()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert events == []


def test_batch_mates_and_order_change_nothing() -> None:
    """Rows kept, runs and tokens are a row's own."""
    case = Case(Shape("sequential", 3, 4, 0.3, ()), 7)
    rng = np.random.default_rng(5)
    rows = [pairs._row(rng, count) for count in (2, 0, 4, 3)]
    model = case.pair.target

    def run(rows: list[Row]):
        found = hj.hippo_generate(
            case.pair,
            assemble(model, rows),
            max_new_tokens=16,
            eos_token_ids=(),
            config=case.shape.config,
        )
        stats = found.stats
        return [
            (
                found.tokens[b].tolist(),
                [k for k in stats.kept_indices[b].tolist() if k >= 0],
                stats.runs[b].tolist(),
                int(stats.rounds[b]),
            )
            for b in range(len(rows))
        ]

    together = run(rows)
    assert run(rows[::-1]) == together[::-1]
    for row, expected in zip(rows, together, strict=True):
        assert run([row]) == [expected]


@pytest.mark.parametrize("schedule", [pytest.param("sequential", marks=SLOW), "parallel"])
def test_rows_without_a_video_are_not_pruned(schedule) -> None:
    case = Case(Shape(schedule, 3, 2, 0.1, ()), 3)
    text = assemble(case.pair.target, [Row(np.arange(1, 9, dtype=np.int32))] * 2)
    config = hj.HippoConfig(gamma=3, schedule=schedule)
    found = hj.hippo_generate(case.pair, text, max_new_tokens=9, eos_token_ids=(), config=config)
    expected = hj.generate(case.pair.target, text, max_new_tokens=9, eos_token_ids=())
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert found.stats.visual_tokens.tolist() == found.stats.kept_visual_tokens.tolist() == [0, 0]
    assert (np.asarray(found.stats.kept_indices) == -1).all()


def test_a_single_frame_and_a_still_video(pair) -> None:
    """No change in time to score: numbers, not NaN, and as many tokens kept as of any video."""
    still = np.full((2, 252, 252, 3), 90, np.uint8)
    frame = np.random.default_rng(0).integers(0, 255, (1, 252, 252, 3)).astype(np.uint8)
    for frames in (still, frame):
        inputs = hj.prepare_inputs(pair, hj.Video(frames, 4.0), "Describe the video.")
        own = int(inputs.visual_tokens[0])
        found = hj.hippo_generate(pair, inputs, max_new_tokens=8)
        expected = hj.generate(pair.target, inputs, max_new_tokens=8)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        assert found.stats.kept_visual_tokens.tolist() == [-(-own // 10)]


def test_other_settings_change_speed_alone(pair, inputs, plain) -> None:
    def only_the_last(context):
        return jnp.asarray(context.inputs.table.frame, jnp.float32)

    for config in (
        hj.HippoConfig(
            gamma=4,
            score_layers=2,
            draft_positions="packed",
            scoring=hj.ScoringConfig(selector="specvlm"),
            schedule="parallel",
        ),
        hj.HippoConfig(scoring=hj.ScoringConfig(selector=only_the_last), keep_ratio=0.25),
    ):
        found = hj.hippo_generate(pair, inputs, max_new_tokens=60, config=config)
        np.testing.assert_array_equal(found.tokens, plain.tokens)
    kept = np.asarray(found.stats.kept_indices)[0]
    assert kept[kept >= 0].tolist() == list(
        range(3 * 81, 4 * 81)
    )  # the user's own scores were used


def test_stream_gives_the_text_piece_by_piece(pair, inputs, result) -> None:
    text = result.text(pair.tokenizer)[0]
    config = hj.HippoConfig(schedule="parallel")
    pieces = list(hj.stream(pair, inputs, max_new_tokens=60, config=config))
    assert "".join(pieces) == text and len(pieces) > 3
    with pytest.warns(UserWarning, match="the target decodes alone"):
        alone = list(hj.stream(pair.target, inputs, max_new_tokens=60))
    assert "".join(alone) == text and len(alone) > len(pieces)


def test_text_pieces_hold_back_half_characters() -> None:
    from hippo_jax.scheduling.streaming import TextPieces

    class Bytes:
        def decode(self, ids, skip_special_tokens):
            return bytes(ids).decode("utf-8", errors="replace")

    pieces = TextPieces(Bytes())
    given = [pieces.push([byte]) for byte in "a\u00e9\u20ac".encode()] + [pieces.rest()]
    assert given == ["a", "", "\u00e9", "", "", "\u20ac", ""]
    pieces = TextPieces(Bytes())
    assert [pieces.push("\u20ac".encode()[:2]), pieces.rest()] == ["", "\ufffd"]


def test_stream_refuses_batches_and_traces(pair, inputs) -> None:
    two = hj.prepare_inputs(pair, [hj.clip(), hj.clip()], "Describe the video.")
    with pytest.raises(hj.HippoError, match="batch of 2"):
        hj.stream(pair, two)
    with pytest.raises(hj.HippoError, match="inside a jax trace"):
        jax.jit(lambda p, i: list(hj.stream(p, i)))(pair, inputs)
    with pytest.raises(hj.HippoError, match="max_new_tokens"):
        hj.stream(pair, inputs, max_new_tokens=0)  # before a piece is asked for


def test_a_target_without_a_draft_decodes_alone(pair, inputs, plain) -> None:
    for lone in (pair.target, hj.ModelPair(pair.target, None)):
        with pytest.warns(UserWarning, match="the target decodes alone"):
            found = hj.hippo_generate(lone, inputs, max_new_tokens=60)
        np.testing.assert_array_equal(found.tokens, plain.tokens)
        assert found.stats is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: hj.HippoConfig(gamma=0), "gamma"),
        (lambda: hj.HippoConfig(gamma=2.0), "gamma"),
        (lambda: hj.HippoConfig(gamma=True), "gamma"),
        (lambda: hj.HippoConfig(keep_ratio=0), "keep_ratio"),
        (lambda: hj.HippoConfig(keep_ratio=1.01), "keep_ratio"),
        (lambda: hj.HippoConfig(keep_ratio=float("nan")), "keep_ratio"),
        (lambda: hj.HippoConfig(keep_ratio="a"), "keep_ratio"),
        (lambda: hj.HippoConfig(schedule="vpsd"), "schedule"),
        (lambda: hj.HippoConfig(scoring="holistic"), "ScoringConfig"),
        (lambda: hj.HippoConfig(score_layers=0), "score_layers"),
        (lambda: hj.HippoConfig(draft_positions="moved"), "draft_positions"),
    ],
)
def test_settings_that_cannot_be(make, said) -> None:
    with pytest.raises(hj.HippoError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_arguments_that_do_not_fit(pair, inputs) -> None:
    def refused(said: str, pair=pair, **keywords) -> None:
        with pytest.raises(hj.HippoError, match=said) as caught:
            hj.hippo_generate(pair, inputs, **keywords)
        assert "\n" not in str(caught.value)

    refused("above capacity 4", max_new_tokens=3, capacity=4, config=hj.HippoConfig(gamma=5))
    refused("8 layers", config=hj.HippoConfig(score_layers=9))
    refused("HippoConfig", config={"gamma": 3})
    refused("ModelPair", pair="demo")
    refused("needs a key", sampling=hj.Sampling())
    refused("max_new_tokens", max_new_tokens=0)
    refused("exceed", max_new_tokens=10**5)
    draft = dataclasses.replace(pair.draft.config, video_token_id=1)
    other = hj.load_model(resources.checkpoint_directory("demo", "draft"))
    other.config = draft
    refused("video_token_id", pair=hj.ModelPair(pair.target, other))
    automatic = hj.HippoConfig(gamma="auto")
    found = hj.hippo_generate(pair, inputs, max_new_tokens=3, capacity=3, config=automatic)
    assert found.tokens.shape == (1, 3)


def test_configs_are_hashable_and_static() -> None:
    one, two = hj.HippoConfig(), hj.HippoConfig(scoring=hj.ScoringConfig(temporal=0.0))
    assert jax.tree.leaves((one, two)) == [] and len({one, two, hj.HippoConfig()}) == 2


def edited(directory: Path, name: str, edit) -> None:
    path = directory / name
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        (
            "tokenizer.json",
            lambda found: found["model"]["vocab"].update(
                dict(
                    zip(
                        list(found["model"]["vocab"])[:2],
                        list(found["model"]["vocab"].values())[1::-1],
                        strict=True,
                    )
                )
            ),
            "different tokenizers",
        ),
        ("preprocessor_config.json", lambda found: found.update(image_mean=[0.4] * 3), "mean"),
    ],
)
def test_a_draft_that_reads_otherwise_is_refused(pair, tmp_path, name, edit, said) -> None:
    shutil.copytree(resources.checkpoint_directory("demo", "draft"), tmp_path / "draft")
    for file in tmp_path.glob("draft/*"):
        file.chmod(0o644)
    hj.load_pair(target=pair.target, draft=tmp_path / "draft")  # a copy fits
    edited(tmp_path / "draft", name, edit)
    if name == "preprocessor_config.json":
        edited(tmp_path / "draft", "video_" + name, edit)
    with pytest.raises(hj.HippoError, match=said) as caught:
        hj.load_pair(target=pair.target, draft=tmp_path / "draft")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schedule", ["sequential", pytest.param("parallel", marks=SLOW)])
def test_64_bit_mode_and_any_limit(schedule) -> None:
    """Traced limits from nothing to beyond the capacity, with 64-bit numbers switched on."""
    case = Case(Shape(schedule, 3, 2, 0.3, ()), 4)
    expected = np.asarray(
        hj.generate(case.pair.target, case.inputs, max_new_tokens=12, eos_token_ids=()).tokens
    )

    @jax.jit
    def traced(pair, inputs, limit):
        return hj.hippo_generate(
            pair,
            inputs,
            max_new_tokens=limit,
            capacity=12,
            eos_token_ids=(),
            config=case.shape.config,
        )

    with jax.enable_x64(True):
        for limit, length in ((0, 0), (1, 1), (7, 7), (12, 12), (99, 12)):
            found = traced(case.pair, case.inputs, limit)
            assert found.lengths.tolist() == [length] * 2
            np.testing.assert_array_equal(found.tokens[:, :length], expected[:, :length])
            assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("schedule", "change"),
    [
        ("sequential", lambda x: x * np.nan),
        pytest.param("parallel", lambda x: x * np.nan, marks=SLOW),
        pytest.param("sequential", lambda x: x.astype(jnp.bfloat16), marks=SLOW),
        pytest.param("parallel", lambda x: x.astype(jnp.bfloat16), marks=SLOW),
    ],
    ids=["sequential-nan", "parallel-nan", "sequential-bfloat16", "parallel-bfloat16"],
)
def test_a_broken_draft_does_not_break_the_answer(schedule, change) -> None:
    """NaN weights, and another dtype: only acceptance suffers."""
    case = Case(Shape(schedule, 3, 2, 0.3, ()), 6)
    pair = hj.ModelPair(case.pair.target, jax.tree.map(change, case.pair.draft))
    found = hj.hippo_generate(pair, case.inputs, config=case.shape.config, **case.arguments())
    np.testing.assert_array_equal(found.tokens, case.plain()[0])
    assert np.isfinite(found.stats.acceptance_rate)


def test_shard_map_over_rows() -> None:
    """Each device decodes its own prompts."""
    case, other = (Case(Shape("parallel", 3, 2, 0.3, ()), seed) for seed in (8, 9))
    both = jax.tree.map(lambda *x: np.stack(x), case.inputs, other.inputs)
    spec, kinds = jax.sharding.PartitionSpec, (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=kinds)

    def each(pair, inputs):
        inputs = jax.tree.map(lambda x: x[0], inputs)
        found = hj.hippo_generate(
            pair, inputs, max_new_tokens=9, eos_token_ids=(), config=case.shape.config
        )
        return found.tokens[None]

    found = jax.jit(
        jax.shard_map(
            each,
            mesh=mesh,
            in_specs=(spec(), spec("data")),
            out_specs=spec("data"),
            check_vma=False,
        )
    )(case.pair, both)
    for tokens, inputs in zip(found, (case.inputs, other.inputs), strict=True):
        expected = hj.generate(case.pair.target, inputs, max_new_tokens=9, eos_token_ids=())
        np.testing.assert_array_equal(tokens, expected.tokens)


def test_nothing_warns_in_ordinary_use(pair, inputs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hj.hippo_generate(pair, inputs, max_new_tokens=60)
