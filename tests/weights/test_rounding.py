"""From one precision to another: to the nearest number, of two equally near to the even one.

Expected bits come from integers, not from a library's conversion.
"""

import math
from fractions import Fraction

import numpy as np
import pytest

from hippo_jax.architectures.parameters import values
from hippo_jax.errors import HippoError
from hippo_jax.weights.convert import convert
from hippo_jax.weights.host import DTYPES
from hippo_jax.weights.load import load_model

EMBEDDING = "model.language_model.embed_tokens.weight"
# Sign, exponent and mantissa bits, and the exponent of the smallest normal number.
FORMATS = {"float32": (8, 23, -126), "bfloat16": (8, 7, -126), "float16": (5, 10, -14)}
WIDTH = 16
LARGEST_HALF = 65504.0


def nearest(x: float, dtype: str) -> int | None:
    """The bits of `x` in a format; None where it would be infinite."""
    exponent_bits, mantissa_bits, smallest = FORMATS[dtype]
    sign = int(np.signbit(x)) << (exponent_bits + mantissa_bits)
    exponent = max(math.frexp(x)[1] - 1, smallest)
    # In units of the last place; Python rounds a fraction to the nearest and even integer.
    units = round(abs(Fraction(x)) / Fraction(2) ** (exponent - mantissa_bits))
    bits = units + ((exponent - smallest) << mantissa_bits)
    return None if bits >> mantissa_bits >= (1 << exponent_bits) - 1 else sign | bits


def bits_of(array) -> np.ndarray:
    array = np.asarray(array)
    return array.view(np.uint32 if array.dtype.itemsize == 4 else np.uint16)


def hard(dtype: str) -> np.ndarray:
    """Numbers that a conversion may get wrong: all 16-bit ones; ties and their neighbours."""
    if dtype != "float32":
        every = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype])
        with np.errstate(invalid="ignore"):  # signalling NaNs
            return np.where(np.isfinite(every), every, np.zeros_like(every))
    rng = np.random.default_rng(0)
    # Halves between neighbours in 8 and 11 bits (bfloat16, float16), at every exponent, subnormal
    # ones too, with one bit more or less.
    exponents = np.arange(255, dtype=np.uint32)[:, None, None, None] << 23
    heads = rng.integers(0, 1 << 23, (1, 4, 1, 1), dtype=np.uint32)
    cuts = np.array([16, 13], np.uint32)[None, None, :, None]
    ties = (heads >> cuts << cuts) | (np.uint32(1) << (cuts - 1))
    near = np.array([0, 1, -1], np.int64)[None, None, None, :]
    bits = (exponents + ties + near).astype(np.uint32).ravel()
    signs = rng.integers(0, 2, bits.shape, dtype=np.uint32) << 31
    return (bits | signs).view(np.float32)


def stored(checkpoint, config, numbers: np.ndarray, name: str = "source"):
    """A checkpoint whose embedding begins with these numbers."""
    rows = -(-numbers.size // (2 * WIDTH)) * 2
    config["vocab_size"] = rows
    padded = np.zeros(rows * WIDTH, numbers.dtype)
    padded[: numbers.size] = numbers

    def change(tensors):
        tensors[EMBEDDING] = padded.reshape(rows, WIDTH)

    return checkpoint(name, config=config, dtype=numbers.dtype, change=change).directory


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_number_is_the_nearest_one(checkpoint, config, tmp_path, source, target) -> None:
    config |= {"image_token_id": 1, "video_token_id": 2}
    config |= {"vision_start_token_id": 3, "vision_end_token_id": 4}
    numbers = hard(source)
    wanted = {x: nearest(x, target) for x in set(numbers.astype(np.float64).tolist()) - {0.0}}
    wide = numbers.astype(np.float64)
    fits = np.array([wanted.get(x, 0) is not None for x in wide.tolist()])
    assert fits.all() == (target != "float16" or source == "float16") or source == "float32"
    numbers = np.where(fits, numbers, np.zeros_like(numbers))
    zero = 1 << (31 if target == "float32" else 15)
    expected = [
        zero * int(np.signbit(x)) if x == 0 else wanted[x]
        for x in numbers.astype(np.float64).tolist()
    ]
    directory = stored(checkpoint, config, numbers)
    for place in directory, convert(directory, tmp_path / "out", dtype=target):
        got = values(load_model(place, dtype=target))["decoder.embedding"]
        assert got.dtype == target
        np.testing.assert_array_equal(bits_of(got).ravel()[: numbers.size], expected)


@pytest.mark.parametrize(
    ("source", "inside", "outside"),
    # The half between the largest number and the next power of two is already too large.
    [("float32", np.nextafter(np.float32(65520), 0), 65520.0), ("bfloat16", 65280.0, 65536.0)],
)
def test_what_overflows_float16_is_refused(checkpoint, config, tmp_path, source, inside, outside):
    dtype = DTYPES[source]
    for sign in 1, -1:
        good = stored(checkpoint, config, np.full(40 * WIDTH, sign * inside, dtype), "good")
        got = np.asarray(values(load_model(good, dtype="float16"))["decoder.embedding"])
        assert np.abs(got[0, 0]) == (LARGEST_HALF if source == "float32" else inside)
        bad = stored(checkpoint, config, np.full(40 * WIDTH, sign * outside, dtype), "bad")
        with pytest.raises(HippoError, match="1 too large for the asked dtype"):
            load_model(bad, dtype="float16")
        with pytest.raises(HippoError, match="1 too large for the asked dtype"):
            convert(bad, tmp_path / f"bad {sign}", dtype="float16")
        whole = convert(bad, tmp_path / f"whole {sign}")
        with pytest.raises(HippoError, match="not finite in float16"):
            load_model(whole, dtype="float16")
