"""The embedded pair as it ships: complete, faithful to transformers, and able to see."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.training import language
from hippo_jax.training.domain import HELD_OUT, sample_scene
from hippo_jax.training.report import write_clips
from hippo_jax.training.samples import sample_scenes
from hippo_jax.training.scoring import score_captions

NEW_TOKENS = 104


@pytest.fixture(scope="module")
def pair() -> hj.ModelPair:
    return hj.load_pair("demo")


@pytest.fixture(scope="module")
def reference() -> Qwen2_5_VLForConditionalGeneration:
    directory = resources.checkpoint_directory("demo", "target")
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()


def ours(pair: hj.ModelPair, files: Sequence[Path], prompts: Sequence[str]) -> list[list[int]]:
    inputs = hj.prepare_inputs(pair, list(files), list(prompts))
    out = hj.generate(pair.target, inputs, max_new_tokens=NEW_TOKENS)
    tokens, lengths = np.asarray(out.tokens), np.asarray(out.lengths)
    return [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]


def theirs(
    reference: Qwen2_5_VLForConditionalGeneration, pair: hj.ModelPair, file: Path, prompt: str
) -> list[int]:
    inputs = hj.prepare_inputs(pair, file, prompt)
    length, visual = int(inputs.lengths[0]), int(inputs.visual_tokens[0])
    ids = torch.from_numpy(inputs.token_ids[:, :length].astype(np.int64))
    with torch.inference_mode():
        out = reference.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values_videos=torch.from_numpy(inputs.vision.pixels[: 4 * visual]),
            video_grid_thw=torch.tensor([[4, 18, 18]]),
            second_per_grid_ts=torch.tensor([0.5]),
            mm_token_type_ids=(ids == pair.target.config.video_token_id).int() * 2,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
    return out[0, length:].tolist()


def check_same_text(pair, reference, files: Sequence[Path], prompts: Sequence[str]) -> None:
    for file, prompt, tokens in zip(files, prompts, ours(pair, files, prompts), strict=True):
        assert tokens == theirs(reference, pair, file, prompt), file.name


def test_transformers_gives_the_same_text_on_the_sample_clips(pair, reference) -> None:
    files = [resources.clip(name) for name in sample_scenes()]
    check_same_text(pair, reference, files, language.PROMPTS[:3])


@pytest.mark.slow
def test_transformers_gives_the_same_text_on_held_out_clips(
    pair, reference, tmp_path: Path
) -> None:
    files = write_clips(tmp_path, [sample_scene(77, i, HELD_OUT) for i in range(32)])
    prompts = [language.PROMPTS[i % 3] for i in range(32)]
    for start in range(0, 32, 8):
        check_same_text(pair, reference, files[start : start + 8], prompts[start : start + 8])


def test_the_video_decides_what_is_said(pair) -> None:
    """Nearly all attributes right on the sample clips; with another clip's text, few."""
    names, scenes = list(sample_scenes()), list(sample_scenes().values())
    files = [resources.clip(name) for name in names]
    texts = [
        pair.tokenizer.decode(t, skip_special_tokens=True)
        for t in ours(pair, files, [language.PROMPTS[0]] * 3)
    ]
    right = score_captions(zip(scenes, texts, strict=True)).accuracy
    swapped = score_captions(zip(scenes, texts[1:] + texts[:1], strict=True)).accuracy
    assert right >= 0.85 and swapped <= 0.6, (right, swapped, texts)


def test_the_pair_is_small_and_complete(pair) -> None:
    root = resources.checkpoint_directory("demo", "target").parent
    assert sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) <= 40e6
    for role, model in (("target", pair.target), ("draft", pair.draft)):
        config = json.loads((root / role / "config.json").read_text())
        assert config["model_type"] == "qwen2_5_vl"
        assert model.config.eos_token_ids
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(model))
    assert pair.target.config.text.num_layers > pair.draft.config.text.num_layers
    assert pair.tokenizer.decode(pair.tokenizer("Ünïcode 漢字")["input_ids"]) == "Ünïcode 漢字"


def test_another_clip_and_limit_in_the_same_bucket_compile_nothing(pair) -> None:
    compiled: list[str] = []

    def listen(name: str, *_: object, **__: object) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    first, second = (resources.clip(name) for name in list(sample_scenes())[:2])
    inputs = hj.prepare_inputs(pair, first, "Describe the video.")
    hj.generate(pair.target, inputs, max_new_tokens=20).tokens.block_until_ready()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        other = hj.prepare_inputs(pair, second, "What happens in the clip?")
        out = hj.generate(pair.target, other, max_new_tokens=30)
        assert np.asarray(out.lengths).tolist() == [30]
        assert compiled == []
        hj.generate(pair.target, other, max_new_tokens=90).tokens.block_until_ready()
        assert compiled  # the listener hears a compilation where there is one
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
