"""HIPPO on two sizes of LLaVA-OneVision, as 0.5B beside 7B: other widths and towers, a tied draft,
vocabularies that are padded differently."""

import functools

import numpy as np
import pytest
import torch
from support import families
from support.oracles import close
from support.placements import PLACES, assert_same, placed
from support.tiny_llava import DRAFT, EVEN, ODD, frames, prompt

import hippo_jax as hj
from hippo_jax.inputs.model_inputs import Row, assemble


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


UNEVEN = (
    prompt(1, 2, frames(3, 100), 4, 5, 6, 7),
    prompt(9, frames(1, 100, 1), 8),
    prompt(11, 12, 13, 14, 15),
    prompt(21, frames(5, 100, 2), 22, frames(2, 100, 3), 23, 24),
)


def alone(row: Row) -> np.ndarray:
    """A row's logits by itself, by transformers; for two videos of different lengths, which it
    cannot take, our own."""
    if len(row.media) > 1:
        return np.asarray(families.model(ODD)(assemble(families.model(ODD), [row])))[0]
    with torch.no_grad():
        return families.hf_model(ODD)(**ODD.hf_inputs([row])).logits[0].numpy()


def test_rows_with_other_numbers_of_frames():
    """A batch of three frames, one, none, and five beside two is row by row what each is alone."""
    batch = assemble(families.model(ODD), UNEVEN)
    assert batch.visual_tokens.tolist() == [48, 16, 0, 112]
    logits = families.model(ODD)(batch)
    for number, row in enumerate(UNEVEN):
        length = len(row.ids)
        close(logits[number, :length], alone(row)[:length], what=f"row {number}")


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_drafts_for_rows_with_other_numbers_of_frames(schedule):
    """Each row says what the target says to it alone, with a draft that sees a third of it."""
    arguments = {"max_new_tokens": 24, "eos_token_ids": ()}
    batch = assemble(pair().target, UNEVEN, draft=pair().draft)
    config = hj.HippoConfig(gamma=3, keep_ratio=0.3, schedule=schedule)
    found = hj.hippo_generate(pair(), batch, config=config, **arguments)
    for number, row in enumerate(UNEVEN):
        single = hj.generate(pair().target, assemble(pair().target, [row]), **arguments)
        np.testing.assert_array_equal(found.tokens[number], single.tokens[0])
    np.testing.assert_array_equal(found.stats.kept_visual_tokens, [15, 5, 0, 34])


def test_a_pair_differs_in_what_it_may():
    target, draft = pair().target.config, pair().draft.config
    assert target.text.vocab_size != draft.text.vocab_size and draft.text.tied
    assert target.vision.hidden_size != draft.vision.hidden_size
    assert target.vision.out_hidden_size != draft.vision.out_hidden_size


def test_frames_of_another_size_are_no_pair():
    with pytest.raises(hj.HippoError, match="image_size is 100 and 56"):
        hj.load_pair(target=families.model(ODD), draft=families.model(EVEN))
