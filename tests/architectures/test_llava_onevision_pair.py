"""HIPPO on two sizes of LLaVA-OneVision, as 0.5B beside 7B: other widths and towers, a tied draft,
vocabularies that are padded differently."""

import functools

import numpy as np
import pytest
from support import families
from support.placements import PLACES, assert_same, placed
from support.tiny_llava import DRAFT, EVEN, ODD

import hippo_jax as hj


@functools.cache
def pair() -> hj.ModelPair:
    draft = families.convert(DRAFT, families.hf_model(DRAFT, tied=True))
    return hj.load_pair(target=families.model(ODD), draft=draft)


@functools.cache
def inputs() -> hj.ModelInputs:
    given = {name: x.numpy() for name, x in ODD.hf_inputs(ODD.rows()).items()}
    return hj.ModelInputs.from_hf(pair(), given)


@functools.cache
def answer(schedule: str, place: str | None = None) -> hj.Generation:
    both = pair() if place is None else placed(pair(), PLACES[place]())
    config = hj.HippoConfig(gamma=3, keep_ratio=0.3, schedule=schedule)
    return hj.hippo_generate(both, inputs(), max_new_tokens=24, eos_token_ids=(), config=config)


@pytest.mark.parametrize(
    ("schedule", "place"),
    [
        pytest.param("parallel", "one program, 1 + 1"),
        pytest.param("parallel", None, marks=pytest.mark.slow),
        pytest.param("sequential", None, marks=pytest.mark.slow),
        pytest.param("sequential", "one program, 2 + 2", marks=pytest.mark.slow),
        pytest.param("parallel", "one program, 3 + 1", marks=pytest.mark.slow),
        pytest.param("parallel", "two meshes, 1 + 1", marks=pytest.mark.slow),
        pytest.param("sequential", "two meshes, 3 + 2", marks=pytest.mark.slow),
        pytest.param("parallel", "one mesh", marks=pytest.mark.slow),
    ],
)
def test_the_targets_own_tokens(schedule, place):
    """What transformers says of the target alone, whoever drafts and where."""
    found = answer(schedule, place)
    np.testing.assert_array_equal(np.asarray(found.tokens)[:, :24], families.reference(ODD).tokens)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "place"), [("parallel", "two meshes, 1 + 1"), ("sequential", "one program, 2 + 2")]
)
def test_counters_are_those_of_one_device(schedule, place):
    assert_same(answer(schedule, place), answer(schedule))


def test_a_pair_differs_in_what_it_may():
    target, draft = pair().target.config, pair().draft.config
    assert target.text.vocab_size != draft.text.vocab_size and draft.text.tied
    assert target.vision.hidden_size != draft.vision.hidden_size
    assert target.vision.out_hidden_size != draft.vision.out_hidden_size


def test_frames_of_another_size_are_no_pair():
    with pytest.raises(hj.HippoError, match="image_size is 100 and 56"):
        hj.load_pair(target=families.model(ODD), draft=families.model(EVEN))
