"""Mutants: every one breaks one thing, and a check that the ordinary tests run must notice.

A mutant that survives means that its check could not fail. A check is first run on the code as it
is; then it must raise ``AssertionError`` under the mutant.
"""

import pytest
from support import checks_decoder, checks_decoding, checks_qwen3, checks_vision
from support.mutation import assert_noticed

from hippo_jax.architectures import (
    attention,
    cache,
    decoder,
    linear,
    merge_blocks,
    names,
    norm,
    patch_grid,
    rope,
    video_lm,
    vit,
)
from hippo_jax.architectures.qwen2_5_vl import layout, vision
from hippo_jax.decoding import generate, sampling
from hippo_jax.inputs import protocol

NEIGHBOURS = "x.astype(jnp.float32)[..., 0::2], x.astype(jnp.float32)[..., 1::2]"

VISION = [
    (
        "bias of packed q, k, v dropped",
        (vit.PackedAttention.__call__, " + self.qkv_bias[...]", ""),
        checks_vision.check_vision_blocks,
    ),
    (
        "windows never used",
        (vision.VisionTower.__call__, "frames if whole else windows", "frames"),
        checks_vision.check_visual_tokens,
    ),
    (
        "full layers taken for windowed ones",
        (vision.VisionTower.__call__, "index in self", "index + 1 in self"),
        checks_vision.check_visual_tokens,
    ),
    (
        "window reorder skipped",
        (
            layout._windows,
            "tokens[y : y + side, x : x + side]",
            "tokens.reshape(w // merge, h // merge)[x : x + side, y : y + side]",
        ),
        checks_vision.check_vision_blocks,
    ),
    (
        "patches come back in the wrong places",
        (
            patch_grid.group_segments,
            "* size + np.arange(len(group))",
            "* size + np.arange(len(group))[::-1]",
        ),
        checks_vision.check_vision_blocks,
    ),
    (
        "full attention crosses temporal units",
        (
            patch_grid.frame_segments,
            "    return group_segments(",
            "    frames = [np.concatenate(frames)]\n    return group_segments(",
        ),
        checks_vision.check_vision_blocks,
    ),
    (
        "rows and columns exchanged in axial RoPE",
        (vit.axial_rotary, "coordinates.astype", "coordinates[:, ::-1].astype"),
        checks_vision.check_vision_blocks,
    ),
    (
        "patches taken in raster order",
        (patch_grid._coordinates, "x.reshape(blocks).transpose(0, 2, 1, 3)", "x"),
        checks_vision.check_vision_blocks,
    ),
    (
        "approximate GELU in the merger",
        (vit.PatchMerger.__call__, "approximate=False", "approximate=True"),
        checks_vision.check_merger,
    ),
    (
        "epsilon of the text decoder in the vision tower",
        (norm.RMSNorm.__call__, "self.eps", "1e-5"),
        checks_vision.check_norms,
    ),
    (
        "ragged segments see their padding",
        (attention._attend_segments, "members >= 0", "members >= -1"),
        checks_decoder.check_segment_attention,
    ),
]

POSITIONS = [
    (
        "seconds truncated before they are multiplied",
        (merge_blocks.rope_positions, "* np.float32(seconds)", "* np.floor(np.float32(seconds))"),
        checks_vision.check_positions_extent,
    ),
    (
        "text resumes one late",
        (
            merge_blocks.rope_positions,
            "return positions, position",
            "return positions, position + 1",
        ),
        checks_vision.check_positions_extent,
    ),
    (
        "the two rules exchanged",
        (merge_blocks.rope_positions, '== "largest"', '!= "largest"'),
        checks_vision.check_positions_largest,
    ),
    (
        "visual tokens of later rows counted from 0",
        (protocol.MediaTokens.rows, "first + np.arange", "np.arange"),
        checks_decoder.check_logits,
    ),
]

DECODER = [
    (
        "bias of linear layers dropped",
        (linear.Linear.__call__, "y + self.bias[...]", "y"),
        checks_decoder.check_decoder_layers,
    ),
    (
        "kernels not transposed",
        (names.HFTensor.to_ours, "-1).T", "-1)"),
        checks_decoder.check_conversion,
    ),
    (
        "M-RoPE sections of height and width exchanged",
        (rope.axis_of_frequency, "np.arange(3, dtype=np.int32)", "np.array([0, 2, 1])"),
        checks_decoder.check_decoder_layers,
    ),
    (
        "neighbours rotated instead of halves",
        (rope.rotate, "jnp.split(x.astype(jnp.float32), 2, axis=-1)", NEIGHBOURS),
        checks_decoder.check_decoder_layers,
    ),
    (
        "interleaved M-RoPE read as chunks",
        (rope.axis_of_frequency, "not config.mrope_interleaved", "True"),
        checks_qwen3.check_qwen3_decoder,
    ),
    (
        "keys normalised with the queries' weight",
        (decoder.Attention.__call__, "self.key_norm(k)", "self.query_norm(k)"),
        checks_qwen3.check_qwen3_decoder,
    ),
    (
        "visual rows added one layer late",
        (decoder.Decoder.run_layers, "after_layer(index, x)", "after_layer(index - 1, x)"),
        checks_qwen3.check_deepstack,
    ),
    (
        "layer ranges begin at 0",
        (decoder.Decoder.run_layers, "range(start, stop)", "range(0, stop)"),
        checks_qwen3.check_layer_ranges,
    ),
    (
        "a token sees the next one",
        (attention._causal_segment, "start + jnp.arange(length)", "start + 1 + jnp.arange(length)"),
        checks_decoder.check_decoder_layers,
    ),
    (
        "a block of rows forgets where its segment starts",
        (attention._causal_segment, "start + index * rows", "index * rows"),
        checks_decoder.check_causal_attention,
    ),
    (
        "query heads dealt to key heads in turn",
        (
            attention._fold_heads,
            "kv_heads, n // kv_heads, h).transpose(0, 2, 3, 1, 4)",
            "n // kv_heads, kv_heads, h).transpose(0, 3, 2, 1, 4)",
        ),
        checks_decoder.check_decoder_layers,
    ),
    (
        "scores not scaled",
        (attention._scores, "scores * q.shape[-1] ** -0.5", "scores"),
        checks_decoder.check_decoder_layers,
    ),
]

CACHE = [
    (
        "the prompt's last token sees padding",
        (attention.rows_attention, "slots <= columns", "slots <= 1 + columns"),
        checks_decoder.check_prefill,
    ),
    (
        "prefill answers for the token before the last",
        (
            video_lm.VideoLM._prompt_layers,
            "jnp.maximum(jnp.asarray(inputs.lengths) - 1, 0)",
            "jnp.maximum(jnp.asarray(inputs.lengths) - 2, 0)",
        ),
        checks_decoder.check_prefill,
    ),
    (
        "a stale tail slot visible",
        (attention.cached_attention, "< tail_lengths[:, None]", "<= tail_lengths[:, None]"),
        checks_decoder.check_cached_attention,
    ),
    (
        "prompt padding visible",
        (
            attention.cached_attention,
            "< prompt_lengths[:, None]",
            "< prompt_lengths.max()[None, None]",
        ),
        checks_decoder.check_cached_attention,
    ),
    (
        "tokens of a block see each other",
        (attention.cached_attention, "jnp.where(causal, own, MASKED)", "own"),
        checks_decoder.check_cached_attention,
    ),
    (
        "tail written one slot off",
        (cache.write, "new, slot, axis=2", "new, slot + 1, axis=2"),
        checks_decoder.check_cache_write,
    ),
    (
        "all rows written at the first row's slot",
        (cache.write, "row(old, new, slot)", "row(old, new, slot * 0 + slot[0])"),
        checks_decoder.check_blocks_against_full_pass,
    ),
]

DECODING = [
    (
        "decoded tokens stand one position late",
        (generate._decode, "next_position + slot", "next_position + slot + 1"),
        checks_decoding.check_greedy,
    ),
    (
        "the last tail token is not seen",
        (generate._decode, "jnp.broadcast_to(slot, (batch,))", "jnp.full(batch, slot - 1)"),
        checks_decoding.check_greedy,
    ),
    (
        "limit off by one",
        (generate._commit, "lengths >= limit", "lengths > limit"),
        checks_decoding.check_greedy,
    ),
    (
        "end tokens ignored",
        (generate._commit, "= jnp.isin(", "= False & jnp.isin("),
        checks_decoding.check_eos,
    ),
    (
        "one row's end ends all",
        (generate._commit, "state.done | ended", "state.done | jnp.any(ended)"),
        checks_decoding.check_eos,
    ),
    (
        "finished rows go on",
        (generate._commit, "running = ~state.done", "running = state.done | True"),
        checks_decoding.check_eos,
    ),
    (
        "repetition penalty ignores the prompt",
        (sampling.seen_tokens, "max(valid)", "max(valid & False)"),
        checks_decoding.check_penalty,
    ),
    (
        "repetition penalty ignores generated tokens",
        (generate._commit, "seen.at[rows, token].max(running)", "seen"),
        checks_decoding.check_penalty,
    ),
]

SAMPLING = [
    (
        "repetition penalty rewards negative logits",
        (sampling.penalise, "logits * penalty", "logits / penalty"),
        checks_decoding.check_processors,
    ),
    (
        "temperature multiplies",
        (sampling.process, "/ sampler.temperature", "* sampler.temperature"),
        checks_decoding.check_processors,
    ),
    (
        "ties with the k-th token dropped",
        (sampling.process, "logits < smallest", "logits <= smallest"),
        checks_decoding.check_processor_ties,
    ),
    (
        "top-p keeps one token too many on its border",
        (sampling.process, "<= 1.0 - ", "< 1.0 - "),
        checks_decoding.check_processor_ties,
    ),
    (
        "noise without position",
        (
            sampling.gumbel_noise,
            "jax.random.fold_in(jax.random.fold_in(key, row), position)",
            "jax.random.fold_in(key, row)",
        ),
        checks_decoding.check_law,
    ),
    (
        "noise without row",
        (sampling.gumbel_noise, "jax.random.fold_in(key, row)", "key"),
        checks_decoding.check_law,
    ),
    (
        "noise without role",
        (sampling.gumbel_noise, "position), role)", "position), 0)"),
        checks_decoding.check_noise_keys,
    ),
    (
        "normal noise instead of Gumbel's",
        (sampling.gumbel_noise, "jax.random.gumbel", "jax.random.normal"),
        checks_decoding.check_law,
    ),
    (
        "noise keyed by bucket slots",
        (
            generate._decode,
            "cache.prompt_lengths + state.step",
            "cache.prompt_lengths.max() + rows * 0 + state.step",
        ),
        checks_decoding.check_sampled_tokens,
    ),
    (
        "first token drawn with the noise of the last prompt token",
        (generate._prefill, "jnp.arange(batch), lengths)", "jnp.arange(batch), lengths - 1)"),
        checks_decoding.check_sampled_tokens,
    ),
]

MUTANTS = [*VISION, *POSITIONS, *DECODER, *CACHE, *DECODING, *SAMPLING]


@pytest.mark.parametrize(
    ("change", "check"), [mutant[1:] for mutant in MUTANTS], ids=[mutant[0] for mutant in MUTANTS]
)
def test_mutant_is_noticed(change, check):
    assert_noticed(change, check)


def test_after_the_mutants_all_is_as_before():
    """No mutated program is left behind in a cache."""
    checks_decoding.check_greedy()
    checks_decoder.check_logits()
