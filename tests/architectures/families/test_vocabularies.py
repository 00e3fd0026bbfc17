"""Two sizes of a family whose vocabularies are padded to different lengths, as they are published.

Rows that only one of the two has are made to win its logits, which no published row does: the draft
must not lose its proposals to them, and the target's answer stays its own, whatever it says.
"""

import functools

import jax
import numpy as np
import pytest
from support.small_sizes import HEAD, agreeing, loaded, random_model, small, video_row

import hippo_jax as hj
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.published import published_config
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.inputs.model_inputs import ModelInputs, Row, assemble
from hippo_jax.scheduling.one_device import start
from hippo_jax.scheduling.plan import make_plan
from hippo_jax.scheduling.roles import propose

SLOW = pytest.mark.slow
PAIRS = (
    ("qwen2.5-vl-7b", "qwen2.5-vl-3b"),
    ("qwen2-vl-7b", "qwen2-vl-2b"),
    ("llava-onevision-7b", "llava-onevision-0.5b"),
)
NEW = 24


@functools.cache
def model(name: str, tower: int = 32) -> VideoLM:
    return random_model(small(name, tower=tower), seed=1)


def rows_of(name: str) -> int:
    return published_config(name).text.vocab_size


def with_loud_rows(model: VideoLM, first: int, loudness: float) -> VideoLM:
    """The logits of ids from ``first`` on made this many times as loud as others."""
    weights = {path: np.array(x) for path, x in values(model).items()}
    weights[HEAD][:, first:] *= loudness
    return loaded(model, weights)


def batch(target: VideoLM, draft: VideoLM) -> ModelInputs:
    rows = (video_row(target), Row(np.arange(11, 17, dtype=np.int32), ()))
    return assemble(target, rows, draft=draft)


def answers(target: VideoLM, draft: VideoLM, schedule: str, keep_ratio: float = 1.0, **drawn):
    """Of the pair, which says the target's own, and its counters."""
    both = hj.load_pair(target=target, draft=draft)
    inputs = batch(target, draft)
    given = {"max_new_tokens": NEW, "eos_token_ids": (), **drawn}
    config = hj.HippoConfig(gamma=3, keep_ratio=keep_ratio, schedule=schedule)
    found = hj.hippo_generate(both, inputs, config=config, **given)
    plain = hj.generate(target, inputs, **given)
    np.testing.assert_array_equal(found.tokens, plain.tokens)
    return np.asarray(found.tokens)[:, :NEW], found.stats


CASES = [
    pytest.param(names, schedule, marks=() if number == 1 else SLOW, id=f"{names[0]}-{schedule}")
    for number, (names, schedule) in enumerate(
        (names, schedule) for names in PAIRS for schedule in ("sequential", "parallel")
    )
]


def test_the_published_lengths() -> None:
    assert [tuple(map(rows_of, names)) for names in PAIRS] == [
        (152064, 151936),
        (152064, 151936),
        (152128, 152000),
    ]


@pytest.mark.parametrize(("names", "schedule"), CASES)
def test_a_draft_with_the_longer_vocabulary(names, schedule) -> None:
    """What only the draft knows is never proposed: a draft that agrees is always right, though its
    own padded rows would win every time."""
    large, little = names
    target, known = model(little), rows_of(little)
    own = with_loud_rows(agreeing(model(large), target), known, 50.0)
    tokens, stats = answers(target, own, schedule)
    assert tokens.max() < known
    assert float(stats.acceptance_rate) == 1.0
    # By itself the draft would say them.
    alone = np.asarray(own(batch(target, own), last=True))
    assert (alone.argmax(axis=-1) >= known).all()


@SLOW
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
@pytest.mark.parametrize("names", PAIRS, ids=lambda names: names[0])
def test_a_target_with_the_longer_vocabulary(names, schedule, sampled) -> None:
    """A target that says padded ids among others keeps them; the draft, which has none, is fed
    them."""
    large, little = names
    known = rows_of(little)
    target = with_loud_rows(model(large), known, 1.7)
    drawn = {"sampling": hj.Sampling(0.9), "key": jax.random.key(3)} if sampled else {}
    tokens, stats = answers(target, agreeing(model(little), model(large)), schedule, **drawn)
    assert (tokens >= known).any() and (tokens < known).any()
    assert 0 < float(stats.acceptance_rate) < 1


@SLOW
@pytest.mark.parametrize("names", PAIRS, ids=lambda names: names[0])
def test_a_chunk_of_proposals(names) -> None:
    """Ids of every proposal, rather than what becomes of them."""
    large, little = names
    target, known = model(little), rows_of(little)
    draft = with_loud_rows(agreeing(model(large), target), known, 50.0)
    both, inputs = hj.load_pair(target=target, draft=draft), batch(target, draft)
    config = hj.HippoConfig(gamma=7, keep_ratio=0.5, schedule="sequential")
    plan, limit = make_plan(both, inputs, NEW, None, None, None, (), config)
    state = jax.jit(lambda pair, i, n: start(pair.target, pair.draft, i, n, None, plan))(
        both, inputs, limit
    )
    chunk = jax.jit(lambda draft, state: propose(draft, state, known, None, plan)[0].chunk)(
        draft, state
    )
    assert chunk.shape == (2, 7) and int(chunk.max()) < known and int(chunk.min()) >= 0


@SLOW
@pytest.mark.parametrize("names", PAIRS, ids=lambda names: names[0])
def test_towers_that_differ_before_a_tied_draft(names) -> None:
    """Wider features before the draft's decoder, a tenth of them: the target's words, and some of
    them guessed."""
    target = model(names[0])
    draft = agreeing(model(names[1], tower=48), target)
    assert draft.config.vision.hidden_size != target.config.vision.hidden_size
    assert draft.config.text.tied and not target.config.text.tied
    for schedule in ("sequential", "parallel"):
        _, stats = answers(target, draft, schedule, keep_ratio=0.1)
        assert np.asarray(stats.kept_visual_tokens).tolist() == [1, 0]
        assert float(stats.acceptance_rate) > 0
