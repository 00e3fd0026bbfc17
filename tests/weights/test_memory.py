"""Loading a large sharded checkpoint takes little more memory than the model itself."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from hippo_jax.architectures.qwen2_5_vl.config import config_from_hf
from hippo_jax.architectures.qwen2_5_vl.names import hf_tensors

STORED = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16)}
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}

# Samples the anonymous memory of its own process while a model loads. A model of another shape is
# loaded before the baseline, so that what jax and flax keep for good is not counted.
CHILD = """
import sys, threading, time
import jax
from hippo_jax.weights.load import load_model

def anonymous():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])

source, warm, dtype, devices = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
mesh = None
if devices > 1:
    mesh = jax.make_mesh((devices,), ("tp",), devices=jax.devices()[:devices])
load_model(warm, dtype=dtype, mesh=mesh)
base = peak = anonymous()
done = False

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
start = time.monotonic()
model = load_model(source, dtype=dtype, mesh=mesh)
seconds = time.monotonic() - start
done = True
thread.join()
print(base, max(peak, anonymous()), seconds)
"""


def write_large(directory: Path, config: dict, kind: str, shards: int) -> SimpleNamespace:
    """A sharded checkpoint written without ever holding more than one block of numbers."""
    config = {
        **config,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 13,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 32768,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "vision_config": {**config["vision_config"], "out_hidden_size": 1024},
    }
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    block = np.random.default_rng(0).standard_normal(1 << 20).astype(STORED[kind]).tobytes()
    tensors = list(hf_tensors(config_from_hf(config)).values())
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        header, start = {}, 0
        for item in tensors[number::shards]:
            size = int(np.prod(item.shape)) * STORED[kind].itemsize
            span = [start, start + size]
            header[item.name] = {"dtype": kind, "shape": item.shape, "data_offsets": span}
            start += size
            weight_map[item.name] = file
        raw = json.dumps(header).encode()
        with (directory / file).open("wb") as out:
            out.write(len(raw).to_bytes(8, "little") + raw)
            for written in range(0, start, len(block)):
                out.write(block[: start - written])
    index = json.dumps({"weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(index)
    sizes = [int(np.prod(item.shape)) for item in tensors]
    return SimpleNamespace(directory=directory, elements=sum(sizes), largest=max(sizes))


def peak_above_baseline(source: Path, warm: Path, dtype: str, devices: int) -> int:
    line = [sys.executable, "-c", CHILD, str(source), str(warm), dtype, str(devices)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    base, peak, seconds = done.stdout.split()
    print(f"{dtype} on {devices}: {int(peak) - int(base)} bytes, {float(seconds):.1f} s")
    return int(peak) - int(base)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_peak_of_loading(checkpoint, config, tmp_path, kind):
    large = write_large(tmp_path / "large", config, kind, 4)
    assert kind != "F32" or large.elements * 4 > 1e9
    warm = checkpoint("warm").directory
    for dtype, devices in (("float32", 1), ("bfloat16", 1), ("float16", 1), ("float32", 2)):
        # All that is large here is split; what is whole on each device is small.
        allowed = 1.3 * large.elements * ITEMSIZE[dtype]
        allowed += large.largest * max(ITEMSIZE[dtype], STORED[kind].itemsize)
        peak = peak_above_baseline(large.directory, warm, dtype, devices)
        assert peak >= 0.9 * large.elements * ITEMSIZE[dtype]  # the probe sees the weights at all
        assert peak <= allowed, f"{kind} to {dtype} on {devices}: {peak} of {allowed:.0f} bytes"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_peak_of_loading_a_converted_directory(checkpoint, config, tmp_path):
    from hippo_jax.weights.convert import convert

    large = write_large(tmp_path / "large", config, "F32", 4)
    place = convert(large.directory, tmp_path / "converted")
    warm = convert(checkpoint("warm").directory, tmp_path / "warm_converted")
    for dtype in "float32", "bfloat16":
        allowed = (1.3 * ITEMSIZE[dtype] * large.elements) + 4 * large.largest
        assert peak_above_baseline(place, warm, dtype, 1) <= allowed
