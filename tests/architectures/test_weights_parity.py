"""``load_model`` on what transformers saves: both name styles, tied and untied."""

import numpy as np
import pytest
import torch
from support import tiny
from support.oracles import close

from hippo_jax.architectures.parameters import values
from hippo_jax.weights.load import load_model


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("original", [True, False], ids=["hub names", "module names"])
def test_saved_by_transformers(tmp_path, tied, original):
    hf = tiny.hf_model(tied)
    hf.save_pretrained(tmp_path, save_original_format=original)
    loaded = load_model(tmp_path, dtype="float32")
    assert loaded.config.text.tied is tied
    expected = values(tiny.convert(hf))
    got = values(loaded)
    assert set(got) == set(expected)
    for path, array in got.items():
        np.testing.assert_array_equal(np.asarray(array), np.asarray(expected[path]), err_msg=path)


def test_tied_logits():
    row = tiny.batch_rows()[2]
    with torch.no_grad():
        expected = tiny.hf_model(tied=True)(**tiny.hf_inputs([row])).logits.numpy()
    close(tiny.convert(tiny.hf_model(tied=True))(tiny.inputs([row])), expected)
