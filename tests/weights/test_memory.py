"""Loading a large sharded checkpoint takes little more memory than the model itself."""

from pathlib import Path

import pytest
from support.large import ITEMSIZE, peak_above_baseline, write_large

from hippo_jax.weights.convert import convert

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]
# All that is large is split over devices; what is whole on each of them is small.
CASES = (("float32", 1), ("bfloat16", 1), ("float16", 1), ("float32", 4))


def assert_within(large, place, warm, kind):
    for dtype, devices in CASES:
        allowed = large.allowed(dtype, kind)
        peak = peak_above_baseline(place, warm, dtype, devices)
        assert peak >= 0.9 * large.elements * ITEMSIZE[dtype]  # the probe sees the weights at all
        assert peak <= allowed, f"{kind} to {dtype} on {devices}: {peak} of {allowed} bytes"


@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_peak_of_loading(checkpoint, config, tmp_path, kind):
    large = write_large(tmp_path / "large", config, kind, 4)
    assert kind != "F32" or large.elements * 4 > 1e9
    assert_within(large, large.directory, checkpoint("warm").directory, kind)


@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_peak_of_loading_a_converted_directory(checkpoint, config, tmp_path, kind):
    large = write_large(tmp_path / "large", config, kind, 4)
    place = convert(large.directory, tmp_path / "converted")
    warm = convert(checkpoint("warm").directory, tmp_path / "warm_converted")
    assert_within(large, place, warm, kind)
