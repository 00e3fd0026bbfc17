"""`load_model(quantize="int8")`: streamed, refused in one line where it cannot be."""

import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest

import hippo_jax as hj
from hippo_jax.architectures.int8 import scale_path
from hippo_jax.architectures.parameters import values
from hippo_jax.placement.needs import pair_needs
from hippo_jax.resources import checkpoint_directory
from hippo_jax.weights.convert import convert
from hippo_jax.weights.export import save_hf
from hippo_jax.weights.host import place_weight

DOWN = "model.language_model.layers.1.mlp.down_proj.weight"
PATH = "decoder.layers.1.mlp.down.kernel"


def assert_same(first, second) -> None:
    ours, theirs = values(first), values(second)
    assert set(ours) == set(theirs)
    for path, array in ours.items():
        assert array.dtype == theirs[path].dtype
        np.testing.assert_array_equal(np.asarray(array), np.asarray(theirs[path]), err_msg=path)


@pytest.mark.parametrize("stored", [np.float32, ml_dtypes.bfloat16, np.float64])
def test_the_nearest_multiples_of_each_output_s_scale(checkpoint, stored) -> None:
    def zero(tensors):
        tensors[DOWN][3] = 0

    written = checkpoint(dtype=np.dtype(stored), change=zero)
    model = hj.load_model(written.directory, dtype="bfloat16", quantize="int8")
    assert model.quantize == "int8" and model.dtype == ml_dtypes.bfloat16
    for path, item in written.names.items():
        array = values(model)[path]
        if scale_path(path) not in values(model):
            assert array.dtype == ml_dtypes.bfloat16
            continue
        ours = item.to_ours(written.tensors[item.name], array.shape).astype(np.float32)
        scale = np.abs(ours).max(axis=0) / np.float32(127)
        np.testing.assert_allclose(values(model)[scale_path(path)], scale, rtol=1e-6)
        error = np.abs(np.asarray(array, np.float32) * scale - ours)
        assert (error <= 0.5001 * scale).all(), path
    assert not np.asarray(values(model)[PATH])[:, 3].any()


def test_a_converted_directory(checkpoint, tmp_path) -> None:
    written = checkpoint()
    place = convert(written.directory, tmp_path / "converted")
    plain = hj.load_model(written.directory, quantize="int8")
    assert_same(hj.load_model(place, quantize="int8"), plain)


def test_only_stored_values_can_overflow(checkpoint) -> None:
    """A kernel beyond float16 fits in int8; NaN fits nowhere, and is named."""

    def enlarge(tensors):
        tensors[DOWN][0, 0] = 1e6

    def spoil(tensors):
        tensors[DOWN][0, 0] = np.nan

    large = checkpoint("large", change=enlarge).directory
    model = hj.load_model(large, dtype="float16", quantize="int8")
    assert np.asarray(values(model)[scale_path(PATH)])[0] == np.float32(1e6) / np.float32(127)
    with pytest.raises(hj.HippoError, match=r"1 with NaN or infinite values: .*down_proj"):
        hj.load_model(checkpoint("nan", change=spoil).directory, quantize="int8")


def test_no_float_copy_of_a_kernel_is_made() -> None:
    """The peak of quantizing one is below the kernel in float32."""
    source = np.ones((4096, 6144), ml_dtypes.bfloat16).T
    specs = {"kernel": jax.P(None, None), "kernel_scale": jax.P(None)}
    tracemalloc.start()
    try:
        placed, finite = place_weight("kernel", source, np.dtype("float32"), specs, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert finite and placed["kernel"].dtype == np.int8
    assert source.size <= peak < 1.5 * source.size


@pytest.mark.parametrize("quantize", ["int4", "float8", True, 8, ("int8",)], ids=str)
def test_what_is_no_quantization(checkpoint, quantize) -> None:
    with pytest.raises(hj.HippoError, match='use "int8"'):
        hj.load_model(checkpoint().directory, quantize=quantize)
    for role in "quantize_target", "quantize_draft":
        with pytest.raises(hj.HippoError, match='use "int8"'):
            hj.load_pair("demo", **{role: quantize})


def test_an_int8_model_is_not_saved(checkpoint, tmp_path) -> None:
    model = hj.load_model(checkpoint().directory, quantize="int8")
    with pytest.raises(hj.HippoError, match="load it again without quantize"):
        save_hf(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pairs() -> None:
    """Each role by itself; the memory that is asked for is that of the loaded weights."""
    target = hj.load_model(checkpoint_directory("demo", "target"), quantize="int8")
    draft = checkpoint_directory("demo", "draft")
    pair = hj.load_pair(target=target, draft=draft, quantize_target="int8")
    assert (pair.target.quantize, pair.draft.quantize) == ("int8", None)
    needs = pair_needs(pair.target, pair.draft)
    for role, model in zip(needs.roles, (pair.target, pair.draft), strict=True):
        resident = sum(array.nbytes for array in values(model).values())
        assert role.weights == role.whole == resident
    asked = pair_needs(target.config, pair.draft.config, quantize=("int8", None))
    assert [r.weights for r in asked.roles] == [r.weights for r in needs.roles]
    with pytest.raises(hj.HippoError, match="the draft is loaded and not int8"):
        hj.load_pair(target=target, draft=pair.draft, quantize_draft="int8")
