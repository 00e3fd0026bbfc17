"""A tiny Qwen2-VL on the prompts of ``support.tiny``."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from hippo_jax.architectures import merge_blocks, norm, vit
from hippo_jax.architectures.patch_grid import frame_segments
from hippo_jax.architectures.qwen2_vl import layout, vision
from hippo_jax.inputs.model_inputs import Row
from support import checks_families, families, tiny
from support.families import FamilyCase
from support.oracles import close


def hf_config(tied: bool) -> Qwen2VLConfig:
    """Two decoder layers behind two of the tower."""
    return Qwen2VLConfig(
        text_config=dict(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=96,
            vocab_size=tiny.VOCAB,
            rms_norm_eps=1e-5,
            rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3]),
            max_position_embeddings=512,
            tie_word_embeddings=tied,
        ),
        vision_config=dict(depth=2, embed_dim=32, num_heads=2, mlp_ratio=2, hidden_size=64),
        image_token_id=tiny.IMAGE,
        video_token_id=tiny.VIDEO,
        vision_start_token_id=tiny.START,
        vision_end_token_id=tiny.END,
        pad_token_id=tiny.PAD,
        tie_word_embeddings=tied,
    )


def rows() -> tuple[Row, ...]:
    """Those of Qwen2.5-VL. Seconds do not count: a mapping has none."""
    return tuple(
        Row(row.ids, tuple(dataclasses.replace(m, seconds_per_grid=1.0) for m in row.media))
        for row in tiny.batch_rows()
    )


def hf_inputs(given: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Without seconds, which this family does not know."""
    arrays = tiny.hf_inputs(given)
    arrays.pop("second_per_grid_ts", None)
    return arrays


def scored(row: Row) -> list[tuple[int, tuple[int, int, int], np.ndarray]]:
    """All placeholders, in runs."""
    slots = np.flatnonzero(np.isin(row.ids, (tiny.IMAGE, tiny.VIDEO)))
    found, at, video = [], 0, 0
    for item in row.media:
        t, h, w = item.grid[0], item.grid[1] // 2, item.grid[2] // 2
        number = video if item.kind == "video" else -1
        video += item.kind == "video"
        found.append((number, (t, h, w), slots[at : at + t * h * w]))
        at += t * h * w
    return found


def check_tower() -> None:
    """Patch embedding, every block fed what the reference fed it, merger, small inputs of norms."""
    ours, theirs = families.model(CASE).vision, families.hf_model(CASE).model.visual
    media = [item for row in rows() for item in row.media]
    pixels = np.concatenate([item.pixels for item in media])
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    hooks = [
        block.register_forward_hook(
            lambda m, args, out: seen.append((args[0].numpy(), out.numpy()))
        )
        for block in theirs.blocks
    ]
    with torch.no_grad():
        grids = torch.tensor([item.grid for item in media])
        theirs(torch.from_numpy(pixels), grid_thw=grids)
    for hook in hooks:
        hook.remove()
    batch = families.inputs(CASE)
    where, count = batch.vision.layout, len(pixels)
    close(ours.patch_embedding(jnp.asarray(pixels)), seen[0][0], 1e-5)
    rotary = vit.axial_rotary(ours.config, where.coordinates)
    x = np.zeros((len(seen), len(batch.vision.pixels), 32), np.float32)
    x[:, :count] = [before for before, _ in seen]

    @jax.jit
    def run(x, where):
        blocks = zip(x, ours.blocks, strict=True)
        return [block(own, rotary, where.frames, where.frame_place) for own, block in blocks]

    for index, got in enumerate(run(x, where)):
        close(got[:count], seen[index][1], 1e-4, f"block {index}")
    rng = np.random.default_rng(0)
    for mine, other in (
        (ours.blocks[0].attention_norm, theirs.blocks[0].norm1),
        (ours.blocks[1].mlp_norm, theirs.blocks[1].norm2),
        (ours.merger.norm, theirs.merger.ln_q),
    ):
        x = 1e-3 * rng.standard_normal((4, 32)).astype(np.float32)
        with torch.no_grad():
            close(mine(jnp.asarray(x)), other(torch.from_numpy(x)).numpy(), 1e-5)
    x = rng.standard_normal((16, 32)).astype(np.float32)
    with torch.no_grad():
        close(ours.merger(jnp.asarray(x)), theirs.merger(torch.from_numpy(x)).numpy(), 1e-5)


def check_positions() -> None:
    """Rotary positions and where text goes on, by transformers; seconds do not count."""
    model, given = families.model(CASE), hf_inputs(rows())
    expected, _ = families.hf_model(CASE).model.get_rope_index(
        given["input_ids"],
        given["mm_token_type_ids"],
        given["image_grid_thw"],
        given["video_grid_thw"],
        given["attention_mask"],
    )
    for b, row in enumerate(rows()):
        theirs = expected[:, b, -len(row.ids) :].numpy()
        media = [(item.kind, item.grid, 3.7) for item in row.media]
        positions, following = model.family.rope_positions(model.config, row.ids, media)
        np.testing.assert_array_equal(positions, theirs)
        assert following == theirs[0, -1] + 1


CASE = FamilyCase(
    name="qwen2_vl",
    hf_class=Qwen2VLForConditionalGeneration,
    hf_config=hf_config,
    rows=rows,
    hf_inputs=hf_inputs,
    placeholders=(tiny.IMAGE, tiny.VIDEO),
    scored=scored,
    modules=(check_tower, check_positions),
    mutants=(
        (
            "another slope of the fast GELU",
            (vision.VisionBlock.activation, "1.702", "1.6"),
            check_tower,
        ),
        (
            "the MLP's branch without its norm",
            (vit.VisionBlock.__call__, "self.mlp(self.mlp_norm(x)", "self.mlp((x)"),
            check_tower,
        ),
        (
            "no mean taken off",
            (norm.LayerNorm.__call__, "x32 - jnp.mean(x32", "x32 - 0 * jnp.mean(x32"),
            check_tower,
        ),
        (
            "full attention crosses temporal units",
            (
                frame_segments,
                "    return group_segments(",
                "    frames = [np.concatenate(frames)]\n    return group_segments(",
            ),
            checks_families.check_visual_tokens,
        ),
        (
            "seconds count as steps",
            (
                layout.rope_positions,
                "grid, 1.0) for kind, grid, _ in",
                "grid, _) for kind, grid, _ in",
            ),
            check_positions,
        ),
        (
            "time stands still",
            (merge_blocks.rope_positions, "np.arange(t, dtype", "np.zeros(t, dtype"),
            checks_families.check_logits,
        ),
    ),
)
