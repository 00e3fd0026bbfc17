"""A tiny InternVL; its draft has the other sort of tower, of another width."""

import numpy as np
from transformers import InternVLForConditionalGeneration

from hippo_jax.architectures.internvl import layout, processor, vision
from hippo_jax.architectures.internvl.config import config_from_hf
from hippo_jax.architectures.parameters import declared, values, with_values
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.inputs.model_inputs import Row
from support import checks_families, families
from support import checks_internvl as checks
from support import checks_internvl_inputs as checks_inputs
from support import tiny_internvl as tiny
from support.families import FamilyCase


def scored(row: Row) -> list[tuple[int, tuple[int, int, int], np.ndarray]]:
    """All placeholders, nine a frame."""
    slots = np.flatnonzero(row.ids == tiny.IMAGE)
    found, at, video = [], 0, 0
    for item in row.media:
        frames = item.grid[0]
        number = video if item.kind == "video" else -1
        video += item.kind == "video"
        found.append((number, (frames, 3, 3), slots[at : at + 9 * frames]))
        at += 9 * frames
    return found


def draft() -> VideoLM:
    """The target's decoder with a little noise and a longer vocabulary, behind a random tower."""
    whole = tiny.hf_config("6b", hidden_size=24, num_hidden_layers=1).to_dict()
    whole["text_config"]["vocab_size"] += 8
    model = abstract_model(config_from_hf(whole))
    rng, own = np.random.default_rng(3), values(families.model(CASE))
    weights = {}
    for path, item in sorted(declared(model).items()):
        noise = rng.standard_normal(item.shape).astype(np.float32)
        if path.startswith("decoder."):
            theirs = np.asarray(own[path])
            weights[path] = 0.02 * theirs.std() * noise
            weights[path][tuple(map(slice, theirs.shape))] += theirs
        elif len(item.shape) == 1:
            weights[path] = 0.2 * noise + path.endswith(("norm.weight", "scale"))
        else:
            weights[path] = noise * np.float32(1.5 / np.sqrt(item.shape[0]))
    return with_values(model, weights)


CASE = FamilyCase(
    name="internvl",
    hf_class=InternVLForConditionalGeneration,
    hf_config=lambda tied: tiny.hf_config(tied=tied),
    rows=tiny.batch_rows,
    hf_inputs=tiny.hf_inputs,
    placeholders=(tiny.IMAGE,),
    scored=scored,
    settle=tiny.settle,
    draft=draft,
    modules=(
        checks.check_embeddings,
        checks.check_blocks,
        checks.check_norms,
        checks.check_pixel_shuffle,
        checks.check_projector,
        checks.check_tower,
        checks.check_whole_heads,
        checks.check_groups,
        checks_inputs.check_sampling,
        checks_inputs.check_pixels,
        checks_inputs.check_ids,
    ),
    mutants=(
        (
            "the last patch dropped instead of the class token",
            (vision.VisionTower.encode, "x[:, 1:]", "x[:, :-1]"),
            checks.check_tower,
        ),
        (
            "no positions",
            (vision.VisionTower.embed, "x if table is None else x", "x if True else x"),
            checks.check_embeddings,
        ),
        (
            "attention added without its scale",
            (vision.VisionBlock.__call__, "self.attention_scale[...] * ", ""),
            checks.check_blocks,
        ),
        (
            "keys not normalised",
            (
                vision.VisionAttention.__call__,
                "self.query_norm(q), self.key_norm(k)",
                "self.query_norm(q), k",
            ),
            checks.check_blocks,
        ),
        (
            "approximate GELU",
            (vision.gelu, "approximate=False", "approximate=True"),
            checks.check_projector,
        ),
        (
            "columns before rows in a merged token",
            (vision.pixel_shuffle, "0, 1, 3, 2, 4, 5", "0, 1, 3, 4, 2, 5"),
            checks.check_pixel_shuffle,
        ),
        (
            "tokens in columns",
            (vision.pixel_shuffle, "0, 1, 3, 2, 4, 5", "0, 3, 1, 2, 4, 5"),
            checks.check_pixel_shuffle,
        ),
        (
            "spare frames of the last chunk in front",
            (
                vision.VisionTower.__call__,
                "((0, chunks * size * each - patches), (0, 0))",
                "((chunks * size * each - patches, 0), (0, 0))",
            ),
            checks.check_tower,
        ),
        (
            "frames of a video counted as one",
            (
                layout.media_tokens,
                "(media.grid[0], tokens, tokens)",
                "(1, media.grid[0] * tokens, tokens)",
            ),
            checks_families.check_table,
        ),
        (
            "patches of a processor's frames in columns",
            (layout._frames, "0, 2, 4, 1, 3, 5", "0, 4, 2, 1, 3, 5"),
            checks_families.check_from_hf,
        ),
        (
            "a second video goes on with the first",
            (layout._numbered, "if np.array_equal(one, label)", "if False"),
            checks.check_groups,
        ),
        (
            "frames from the start of the video",
            (processor.InternVLProcessor.spread, "start=total / count / 2", "start=0.0"),
            checks_inputs.check_sampling,
        ),
        (
            "frames counted from 0",
            (processor.InternVLProcessor.spell, "range(1, frames + 1)", "range(frames)"),
            checks_inputs.check_ids,
        ),
    ),
)
