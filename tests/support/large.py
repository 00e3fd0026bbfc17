"""Checkpoints of gigabytes for tests of memory, and a probe of the memory that work takes."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from hippo_jax.architectures.qwen2_5_vl.config import config_from_hf
from hippo_jax.architectures.qwen2_5_vl.names import hf_tensors

STORED = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16)}
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
# Numbers of one block of the files: 64 MB in float32, more than a compressor looks back.
_BLOCK = 1 << 24

# Samples the anonymous memory of its own process while it works. The same is done with a small
# model before the baseline, so that what jax, flax and Orbax keep for good is not counted.
_CHILD = """
import sys, threading, time
import jax
from hippo_jax.weights.convert import convert
from hippo_jax.weights.load import load_model

def anonymous():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])

def work(source):
    if what == "convert":
        return convert(source, sys.argv[5] + "/" + source.split("/")[-1])
    return load_model(source, dtype=what, mesh=mesh)

source, warm, what, devices = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
mesh = None
if devices > 1:
    mesh = jax.make_mesh((devices,), ("tp",), devices=jax.devices()[:devices])
work(warm)
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
result = work(source)
seconds = time.monotonic() - start
done = True
thread.join()
print(base, max(peak, anonymous()), seconds)
"""


@dataclass(frozen=True)
class Large:
    """A checkpoint, the numbers in it, and the numbers in its largest tensor."""

    directory: Path
    elements: int
    largest: int

    def allowed(self, dtype: str, stored: str) -> int:
        """Bytes above the start that loading may take: 1.15 times what stays, and one tensor."""
        tensor = self.largest * max(ITEMSIZE[dtype], STORED[stored].itemsize)
        return int(1.15 * self.elements * ITEMSIZE[dtype]) + tensor


def write_large(
    directory: Path, config: dict, kind: str, shards: int, *, width: int = 1024, layers: int = 13
) -> Large:
    """A sharded checkpoint written without ever holding more than one block of numbers.

    Args:
        config: a tiny ``config.json`` to be widened.
        kind: dtype in the files, "F32" or "BF16".
        width: of the decoder, a multiple of 128; the vocabulary has 32 times as many entries.
    """
    part = width // 128
    config = {
        **config,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 32 * width,
        "rope_scaling": {
            "type": "mrope",
            "mrope_section": [part, part + part // 2, part + part // 2],
        },
        "vision_config": {**config["vision_config"], "out_hidden_size": width},
    }
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    numbers = np.random.default_rng(0).standard_normal(_BLOCK, np.float32)
    block = numbers.astype(STORED[kind]).view(np.uint8)
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
                out.write(block[: start - written].data)
    index = json.dumps({"weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(index)
    sizes = [int(np.prod(item.shape)) for item in tensors]
    return Large(directory, sum(sizes), max(sizes))


def peak_above_baseline(
    source: Path, warm: Path, what: str, devices: int = 1, destination: Path | None = None
) -> int:
    """Anonymous bytes that a child process takes above its start, at most.

    Args:
        warm: a small source of the same kind.
        what: dtype to load in, or "convert" to convert to ``destination`` / name of the source.
    """
    line = [sys.executable, "-c", _CHILD, str(source), str(warm), what, str(devices)]
    if destination is not None:
        line.append(str(destination))
    done = subprocess.run(line, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    base, peak, seconds = done.stdout.split()
    print(f"{what} on {devices}: {int(peak) - int(base)} bytes, {float(seconds):.1f} s")
    return int(peak) - int(base)
