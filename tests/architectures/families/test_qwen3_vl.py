"""Qwen3-VL beyond what every family is asked: from a directory, from odd ids, on many devices."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inputs import golden_cases as cases
from support import checks_qwen3_vl_inputs as preprocessing
from support import checks_qwen3_vl_model as checks
from support import families
from support import tiny_qwen3_vl as tiny
from support.placements import PLACES, assert_same, placed
from support.tiny import perturb

import hippo_jax as hj
from hippo_jax.architectures.parameters import values, with_values
from hippo_jax.errors import HippoError
from hippo_jax.inputs.compatibility import check_configs
from hippo_jax.inputs.model_inputs import Row, assemble
from hippo_jax.inputs.resize import resize_frame

SLOW = pytest.mark.slow
TOKENIZER = Path(cases.__file__).parent / "tokenizer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint with the tests' tokenizer and patches of the published size."""
    folder = tmp_path_factory.mktemp("qwen3_vl")
    config = tiny.hf_config("target", False)
    config.vision_start_token_id, config.vision_end_token_id = 266, 267
    config.image_token_id, config.video_token_id = 268, 269
    config.text_config.vocab_size, config.vision_config.patch_size = 272, 16
    hf = tiny.case().hf_class(config).eval().float()
    perturb(hf)
    hf.save_pretrained(folder)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    for name, (low, high) in {
        "video_preprocessor_config.json": cases.QWEN3_BOUNDS,
        "preprocessor_config.json": cases.QWEN3_IMAGE_BOUNDS,
    }.items():
        size = {"shortest_edge": low, "longest_edge": high}
        settings = {"size": size, "patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (folder / name).write_text(json.dumps(settings))
    return folder


def test_a_clip_and_a_prompt(folder: Path) -> None:
    """Ids, timestamps and pixels of the reference, which samples two frames a second."""
    model = hj.load_model(folder, dtype="float32")
    video = hj.Video(cases.frames(*cases.QWEN3_VIDEOS["long"]), cases.QWEN3_FPS)
    inputs = hj.prepare_inputs(model, video, "What moves?")
    goldens, length = preprocessing.goldens(), int(inputs.lengths[0])
    assert inputs.token_ids[0, :length].tolist() == goldens["ids_0"].tolist()
    assert inputs.visual_tokens.tolist() == [int((goldens["ids_0"] == 269).sum())]
    sampled = goldens["sampled"].astype(np.float32)
    preprocessing.check_pixels(inputs.vision.pixels[: len(sampled)], sampled)
    assert (inputs.vision.pixels[len(sampled) :] == 0).all()
    table = inputs.table
    height, width = int(table.height[0]), int(table.width[0])
    seen = model.family.processor(folder).seen_frame(
        inputs.vision.pixels, height * width, height, width
    )
    np.testing.assert_array_equal(seen, resize_frame(video.frames[8], 32 * height, 32 * width))
    image = hj.prepare_inputs(model, cases.frames(*cases.IMAGE[0])[0], "What is it?")
    assert int(image.visual_tokens[0]) == len(goldens["image"]) // 4


def test_an_outer_pair_of_marks() -> None:
    """As transformers 5 lays a video out: its frames in start and end tokens of their own, and one
    more pair around all of them."""
    plain = tiny.video_row()
    ids = np.concatenate([plain.ids[:2], [tiny.START], plain.ids[2:-4], [tiny.END], plain.ids[-4:]])
    row = Row(ids.astype(np.int32), plain.media)
    given = {name: array.numpy() for name, array in tiny.hf_inputs([row]).items()}
    got = hj.ModelInputs.from_hf(tiny.model(), given)
    expected = assemble(tiny.model(), [row], left_padding=[0], width=len(ids))
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert got.lengths == len(plain.ids) + 2 and got.visual_tokens == 45


@pytest.mark.parametrize(
    "change",
    [
        lambda ids: np.append(ids, tiny.VIDEO),
        lambda ids: np.delete(ids, 7),
        lambda ids: ids[ids != tiny.VIDEO],
        lambda ids: np.insert(ids, 9, 3),  # text inside of a frame
    ],
)
def test_placeholders_that_do_not_fit(change) -> None:
    row = tiny.video_row()
    with pytest.raises(HippoError, match="placeholders"):
        tiny.inputs([Row(change(row.ids).astype(np.int32), row.media)])


def test_pairs_that_do_not_fit() -> None:
    """What inputs are made for must be equal, the towers' depths need not be."""
    target, draft = tiny.model(), tiny.model("draft")
    shared = target.family.shared
    check_configs(target.config, draft.config, shared)
    vision = dataclasses.replace(draft.config.vision, temporal_patch_size=1)
    other = dataclasses.replace(draft.config, vision=vision)
    with pytest.raises(HippoError, match="temporal_patch_size"):
        check_configs(target.config, other, shared)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "schedule"),
    [
        ("one program, 1 + 1", "parallel"),
        ("one program, 1 + 1", "sequential"),
        ("one program, 3 + 1", "parallel"),
        ("one mesh", "sequential"),
        ("two meshes, 1 + 1", "parallel"),
        ("two meshes, 1 + 1", "sequential"),
        ("two meshes, 3 + 2", "parallel"),
    ],
)
def test_devices_of_their_own(place: str, schedule: str) -> None:
    """Both schedulers, towers of different depths: the tokens and counters of one device."""
    pair = families.pair(tiny.case())
    found = checks.speculative(placed(pair, PLACES[place]()), schedule)
    expected = families.reference(tiny.case()).tokens
    np.testing.assert_array_equal(np.asarray(found.tokens)[:, : checks.NEW], expected)
    assert_same(found, checks.speculative(pair, schedule))


@SLOW
@pytest.mark.parametrize("check", [checks.check_pruned_draft, checks.check_twin_draft])
def test_drafts(check) -> None:
    check()


@SLOW
def test_sampled_tokens() -> None:
    """One key, one text, with a draft and without."""
    drawn = {"sampling": hj.Sampling(0.8), "key": jax.random.key(7), "eos_token_ids": ()}
    plain = hj.generate(tiny.model(), checks.batch(), max_new_tokens=checks.NEW, **drawn)
    config = hj.HippoConfig(gamma=3, keep_ratio=0.3, schedule="sequential")
    pair = families.pair(tiny.case())
    found = hj.hippo_generate(
        pair, checks.batch(), max_new_tokens=checks.NEW, config=config, **drawn
    )
    np.testing.assert_array_equal(found.tokens, plain.tokens)


@SLOW
def test_bfloat16_is_finite_and_close() -> None:
    model, inputs = tiny.model(), checks.batch()
    half = with_values(model, {k: v.astype(jnp.bfloat16) for k, v in values(model).items()})
    visual = jax.jit(lambda m, i: m.encode_video(i))(half, inputs)
    assert visual.dtype == jnp.bfloat16 and bool(jnp.isfinite(visual).all())
    got = np.asarray(half(inputs, last=True))[:, 0]
    exact = families.reference(tiny.case()).logits[:, -1]
    assert got.dtype == np.float32 and np.isfinite(got).all()
    assert np.sqrt(np.mean((got - exact) ** 2)) < 0.1 * exact.std()
