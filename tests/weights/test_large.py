"""A checkpoint of 4.5 GB in twelve files: memory, kills, damage. Takes about 10 GB of disk.

The files are written once for the module; the conversion that was killed is the one that is loaded.
"""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.kills import convert_and_kill
from support.large import ITEMSIZE, peak_above_baseline, write_large

from hippo_jax.architectures.parameters import values
from hippo_jax.errors import HippoError
from hippo_jax.weights.checkpoint import open_checkpoint
from hippo_jax.weights.convert import convert
from hippo_jax.weights.load import load_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]
CASES = (("float32", 1), ("float32", 4), ("bfloat16", 1))
KILLS = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that does not outlive the module: the system's would, three times over."""
    folder = tmp_path_factory.mktemp("large")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def large(place, tiny_config):
    made = write_large(place / "large", tiny_config, "F32", 12, width=2048, layers=14)
    assert made.elements * 4 > 4.4e9
    return made


@pytest.fixture(scope="module")
def warm(place, tiny_checkpoint):
    """A small source and its conversion."""
    source = tiny_checkpoint(place / "warm").directory
    return source, convert(source, place / "warm_converted")


@pytest.fixture(scope="module")
def converted(place, large):
    """The conversion that comes out of many kills."""
    chance, killed = random.Random(0), 0
    while killed < KILLS:
        # A few seconds a part: early kills are before or in the first, later ones far inside.
        after = chance.uniform(0, 6)
        killed += convert_and_kill(large.directory, place / "converted", after) != 0
        print(f"kill {killed} after {after:.1f} s", flush=True)
        try:
            load_model(place / "converted")
        except HippoError:
            continue
        if killed < KILLS:  # it was whole before it could be killed: from the beginning again
            shutil.rmtree(place / "converted")
    return convert(large.directory, place / "converted")


def assert_within(large, source, warm):
    for dtype, devices in CASES:
        peak = peak_above_baseline(source, warm, dtype, devices)
        assert peak >= 0.9 * large.elements * ITEMSIZE[dtype]
        assert peak <= large.allowed(dtype, "F32"), f"{dtype} on {devices}: {peak} bytes"


def test_peak_of_loading(large, warm):
    assert_within(large, large.directory, warm[0])


def test_what_kills_leave_is_finished_right(large, converted):
    source = open_checkpoint(large.directory)
    for path, array in values(load_model(converted)).items():
        np.testing.assert_array_equal(np.asarray(array), source.weight(path, array.shape))
    assert not list(converted.rglob("*.tmp"))


def test_peak_of_loading_a_converted_directory(large, warm, converted):
    assert_within(large, converted, warm[1])


def test_one_flipped_bit_is_found(converted):
    victim = max(converted.glob("part-*/weights/**/d/*"), key=lambda path: path.stat().st_size)
    with victim.open("r+b") as file:
        file.seek(victim.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(HippoError, match="1 files whose checksum is wrong"):
        load_model(converted)


def test_a_missing_shard_is_named(large):
    shard = large.directory / "model-00007-of-00012.safetensors"
    shard.unlink()
    with pytest.raises(HippoError, match=f"1 of 12 shards are missing: {shard.name}"):
        load_model(large.directory)
