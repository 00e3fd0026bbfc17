"""Tiny checkpoints written by hand, in every form that `load_model` has to read."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from hippo_jax.architectures.qwen2_5_vl.config import config_from_hf
from hippo_jax.architectures.qwen2_5_vl.names import hf_tensors

DTYPE_NAMES = {
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.int64): "I64",
}
CONFIG = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 0]},
    "tie_word_embeddings": False,
    "image_token_id": 36,
    "video_token_id": 37,
    "vision_start_token_id": 38,
    "vision_end_token_id": 39,
    "vision_config": {
        "depth": 2,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 12,
        "out_hidden_size": 16,
        "fullatt_block_indexes": [1],
    },
}


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A safetensors file, by the format's own description."""
    header, start = {}, 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": DTYPE_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    body = b"".join(np.ascontiguousarray(a).tobytes() for a in tensors.values())
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + body)


def hub_name(name: str) -> str:
    """The older name that hub files of Qwen2.5-VL use."""
    for new, old in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(new):
            return old + name[len(new) :]
    return name


def make_checkpoint(
    directory: Path,
    *,
    config: dict | None = None,
    dtype: type | np.dtype = np.float32,
    hub: bool = True,
    shards: int = 1,
    index: bool = True,
    seed: int = 0,
    change: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> SimpleNamespace:
    """Write a directory; gives `.directory`, `.tensors` (canonical names) and `.names` (ours)."""
    directory.mkdir(parents=True, exist_ok=True)
    config = CONFIG if config is None else config
    names = hf_tensors(config_from_hf(config))
    rng = np.random.default_rng(seed)
    tensors = {
        item.name: rng.standard_normal(item.shape).astype(np.float32).astype(dtype)
        for item in names.values()
    }
    if change is not None:
        change(tensors)
    stored = {hub_name(name) if hub else name: array for name, array in tensors.items()}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    (directory / "tokenizer.json").write_text("{}")
    if shards == 1:
        write_safetensors(directory / "model.safetensors", stored)
    else:
        weight_map = {}
        for number in range(shards):
            file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            part = {name: stored[name] for name in list(stored)[number::shards]}
            write_safetensors(directory / file, part)
            weight_map |= dict.fromkeys(part, file)
        if index:
            text = json.dumps({"metadata": {}, "weight_map": weight_map})
            (directory / "model.safetensors.index.json").write_text(text)
    return SimpleNamespace(directory=directory, tensors=tensors, names=names)


@pytest.fixture
def config() -> dict:
    """A copy of the tiny model's flat `config.json`, free to change."""
    return json.loads(json.dumps(CONFIG))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """`checkpoint(**how)` writes a tiny Qwen2.5-VL directory (see `make_checkpoint`)."""

    def make(name: str = "source", **how: object) -> SimpleNamespace:
        return make_checkpoint(tmp_path / name, **how)

    return make


@pytest.fixture(scope="session")
def tiny_config() -> dict:
    """``config``, for fixtures that outlive a test; not to be changed."""
    return CONFIG


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Callable[..., SimpleNamespace]:
    """``make_checkpoint``, which takes the directory."""
    return make_checkpoint
