"""A tiny random Qwen3-VL text model and our decoder with its weights.

It exercises what Qwen2.5-VL does not: per-head norms of queries and keys, projections without
biases, a head dimension that is not hidden / heads, interleaved M-RoPE, and visual rows added
after the first layers (deepstack).
"""

import functools

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from hippo_jax.architectures.config import DecoderConfig
from hippo_jax.architectures.decoder import Decoder
from hippo_jax.architectures.parameters import declared, with_values
from support.tiny import perturb

CONFIG = DecoderConfig(
    vocab_size=90,
    hidden_size=32,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=48,
    rms_norm_eps=1e-6,
    rope_theta=1e4,
    mrope_section=(4, 2, 2),
    mrope_interleaved=True,
    qkv_bias=False,
    qk_norm=True,
    tied=True,
)
NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "attention.query.kernel": "self_attn.q_proj.weight",
    "attention.key.kernel": "self_attn.k_proj.weight",
    "attention.value.kernel": "self_attn.v_proj.weight",
    "attention.output.kernel": "self_attn.o_proj.weight",
    "attention.query_norm.weight": "self_attn.q_norm.weight",
    "attention.key_norm.weight": "self_attn.k_norm.weight",
    "mlp.gate.kernel": "mlp.gate_proj.weight",
    "mlp.up.kernel": "mlp.up_proj.weight",
    "mlp.down.kernel": "mlp.down_proj.weight",
}


@functools.cache
def hf_text_model() -> Qwen3VLTextModel:
    """The oracle."""
    config = Qwen3VLTextConfig(
        vocab_size=90,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=48,
        rms_norm_eps=1e-6,
        rope_parameters=dict(
            rope_type="default", rope_theta=1e4, mrope_section=[4, 2, 2], mrope_interleaved=True
        ),
        attention_bias=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = Qwen3VLTextModel(config).eval().float()
    perturb(model, seed=2)
    return model


@functools.cache
def decoder() -> Decoder:
    """Ours."""
    model = nnx.eval_shape(lambda: Decoder(CONFIG, rngs=nnx.Rngs(0)))
    state = {name: x.numpy() for name, x in hf_text_model().state_dict().items()}
    weights = {}
    for path in declared(model):
        if path == "embedding":
            theirs = state["embed_tokens.weight"]
        elif path == "norm.weight":
            theirs = state["norm.weight"]
        else:
            _, layer, rest = path.split(".", 2)
            theirs = state[f"layers.{layer}.{NAMES[rest]}"]
        weights[path] = jnp.asarray(theirs.T if path.endswith("kernel") else theirs)
    return with_values(model, weights)


@functools.cache
def case() -> dict[str, np.ndarray]:
    """Two prompts of embeddings, positions on three axes, visual rows for layers 0 and 1, and
    what the oracle makes of them, with and without those rows (after the final norm)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 14, 32)).astype(np.float32)
    positions = np.cumsum(rng.integers(0, 3, (3, 2, 14)), axis=-1)
    visual = np.zeros((2, 14), bool)
    visual[0, 2:8] = visual[1, 5:9] = True
    rows = rng.standard_normal((2, int(visual.sum()), 32)).astype(np.float32)
    given = dict(
        inputs_embeds=torch.from_numpy(x), position_ids=torch.from_numpy(positions), use_cache=False
    )
    with torch.no_grad():
        plain = hf_text_model()(**given).last_hidden_state.numpy()
        deep = hf_text_model()(
            **given,
            visual_pos_masks=torch.from_numpy(visual),
            deepstack_visual_embeds=list(torch.from_numpy(rows)),
        ).last_hidden_state.numpy()
    return dict(
        x=x, positions=positions.astype(np.int32), visual=visual, rows=rows, plain=plain, deep=deep
    )
