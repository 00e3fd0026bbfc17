"""Decoder layers, attention, cache and logits against transformers and plain versions."""

import pytest
from support import checks_decoder, checks_qwen3


@pytest.mark.parametrize(
    "check",
    [
        checks_decoder.check_decoder_layers,
        checks_decoder.check_logits,
        checks_decoder.check_prefill,
        checks_decoder.check_conversion,
        checks_decoder.check_causal_attention,
        checks_decoder.check_segment_attention,
        checks_decoder.check_cached_attention,
        checks_decoder.check_cache_write,
        checks_decoder.check_blocks_against_full_pass,
    ],
)
def test_qwen2_5(check):
    check()


@pytest.mark.parametrize(
    "check",
    [
        checks_qwen3.check_qwen3_decoder,
        checks_qwen3.check_deepstack,
        checks_qwen3.check_layer_ranges,
    ],
)
def test_qwen3(check):
    check()
