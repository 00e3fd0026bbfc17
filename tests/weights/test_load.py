"""`load_model` gives exactly the numbers in the files, or one clear line."""

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jax
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import constants as hub_constants
from huggingface_hub import errors as hub_errors

from hippo_jax.architectures.parameters import declared, values
from hippo_jax.architectures.sharding import axis_units
from hippo_jax.errors import HippoError
from hippo_jax.weights.host import default_dtype
from hippo_jax.weights.load import load_model

BF16 = np.dtype(ml_dtypes.bfloat16)
F16 = np.dtype(np.float16)
F32 = np.dtype(np.float32)
HEAD = "lm_head.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"
QUERY = "model.language_model.layers.1.self_attn.q_proj.weight"


def assert_holds(model, written, dtype=F32):
    """Every weight equals the stored tensor, put into our layout by hand."""
    got = values(model)
    assert set(got) == set(written.names)
    for path, item in written.names.items():
        stored = written.tensors[item.name]
        ours = got[path]
        if item.transposed:
            stored = np.moveaxis(stored.reshape(stored.shape[0], -1), 0, 1)
        expected = stored.astype(np.float32).astype(dtype).reshape(ours.shape)
        assert ours.dtype == dtype
        np.testing.assert_array_equal(np.asarray(ours), expected, err_msg=path)


@pytest.mark.parametrize("hub", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_numbers_are_those_of_the_file(checkpoint, hub, shards):
    written = checkpoint(hub=hub, shards=shards)
    model = load_model(written.directory)
    assert_holds(model, written)
    assert model.source == str(written.directory)
    assert model.config.eos_token_ids == (7, 9)


@pytest.mark.parametrize("stored", [F32, BF16, F16, np.dtype(np.float64)], ids=str)
@pytest.mark.parametrize("asked", ["float32", "bfloat16", np.float16], ids=str)
def test_dtypes(checkpoint, stored, asked):
    written = checkpoint(dtype=stored)
    want = {"float32": F32, "bfloat16": BF16}.get(asked, F16)
    assert_holds(load_model(written.directory, dtype=asked), written, want)


def test_shards_without_an_index(checkpoint):
    written = checkpoint(shards=2, index=False)
    assert_holds(load_model(written.directory), written)
    (written.directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(HippoError, match="1 shards where their names say 2"):
        load_model(written.directory)


def test_weights_stay_uncommitted_without_a_mesh(checkpoint):
    model = load_model(checkpoint().directory)
    assert not any(array.committed for array in values(model).values())


@pytest.mark.parametrize("flag", ["top level", "text_config", "says untied"])
def test_tied_when_the_file_has_no_head(checkpoint, config, flag):
    if flag == "text_config":
        config["text_config"] = {**config, "tie_word_embeddings": True}
    config["tie_word_embeddings"] = flag == "top level"
    written = checkpoint(config=config, change=lambda tensors: tensors.pop(HEAD, None))
    written.names.pop("decoder.head.kernel", None)
    model = load_model(written.directory)
    assert model.config.text.tied
    assert_holds(model, written)


@pytest.mark.parametrize("equal", [True, False])
def test_a_head_in_a_tied_file_is_used_unless_it_is_the_embedding(checkpoint, config, equal):
    def add_head(tensors):
        tensors[HEAD] = tensors[EMBEDDING] + np.float32(0 if equal else 1)

    config["tie_word_embeddings"] = True
    written = checkpoint(config=config, change=add_head)
    model = load_model(written.directory)
    assert model.config.text.tied is equal
    if not equal:
        head = np.asarray(values(model)["decoder.head.kernel"])
        np.testing.assert_array_equal(head, written.tensors[HEAD].T)


def test_mesh_splits_over_tp(checkpoint):
    written = checkpoint()
    whole = values(load_model(written.directory))
    for kind in jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit:
        mesh = jax.make_mesh((2, 4), ("data", "tp"), axis_types=(kind,) * 2)
        model = load_model(written.directory, mesh=mesh)
        assert_holds(model, written)
        axes = declared(model)
        split = 0
        for path, array in values(model).items():
            spec = tuple(array.sharding.spec)
            assert set(spec) <= {None, "tp"}
            split += "tp" in spec
            for shard in array.addressable_shards:
                np.testing.assert_array_equal(shard.data, np.asarray(whole[path])[shard.index])
            for axis, name in zip(spec, axes[path].axes, strict=True):
                assert axis is None or name in axis_units(model.config)
        assert split >= 20
        query = values(model)["decoder.layers.0.attention.query.kernel"]
        assert {shard.data.shape for shard in query.addressable_shards} == {(16, 4)}


def test_what_does_not_divide_is_replicated(checkpoint):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:3]), ("tp",))
    model = values(load_model(checkpoint().directory, mesh=mesh))
    assert model["decoder.layers.0.mlp.gate.kernel"].sharding.spec == jax.P(None, "tp")  # 24
    assert model["decoder.layers.0.attention.query.kernel"].sharding.is_fully_replicated  # 16


def test_a_mesh_without_tp_replicates(checkpoint):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    model = load_model(checkpoint().directory, mesh=mesh)
    assert all(array.sharding.is_fully_replicated for array in values(model).values())


def test_one_error_lists_all_that_does_not_fit(checkpoint):
    def spoil(tensors):
        del tensors["model.visual.merger.ln_q.weight"]
        tensors["model.visual.extra"] = np.ones(3, np.float32)
        tensors[QUERY] = tensors[QUERY][:5]
        tensors["model.visual.blocks.0.norm1.weight"] = np.ones(16, np.int64)
        tensors["model.language_model.norm.weight"][3] = np.nan
        tensors["model.language_model.layers.0.mlp.up_proj.weight"][5, 1] = -np.inf

    written = checkpoint(change=spoil, hub=False)
    with pytest.raises(HippoError) as caught:
        load_model(written.directory)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 2000
    for words in (
        "1 missing: model.visual.merger.ln_q.weight",
        "1 not of this model: model.visual.extra",
        f"1 of another shape: {QUERY} [5, 16] instead of [16, 16]",
        "1 of a dtype that is not read: model.visual.blocks.0.norm1.weight (I64)",
        "2 with NaN or infinite values: model.language_model.norm.weight",
        "model.language_model.layers.0.mlp.up_proj.weight",
    ):
        assert words in text


def test_non_finite_values_alone_are_all_named(checkpoint):
    def spoil(tensors):
        tensors[EMBEDDING][0, 0] = np.inf
        tensors[HEAD][3, 3] = np.nan

    with pytest.raises(HippoError, match="2 with NaN or infinite values") as caught:
        load_model(checkpoint(change=spoil, dtype=BF16).directory)
    assert "model.embed_tokens.weight" in str(caught.value) and HEAD in str(caught.value)


def test_overflow_in_float16_is_refused(checkpoint):
    def enlarge(tensors):
        tensors[QUERY][0, 0] = 1e6

    written = checkpoint(change=enlarge)
    assert_holds(load_model(written.directory, dtype="bfloat16"), written, BF16)
    with pytest.raises(HippoError, match="1 too large for the asked dtype"):
        load_model(written.directory, dtype="float16")


def test_a_long_listing_is_cut_with_its_count(checkpoint):
    written = checkpoint(change=lambda t: [t.pop(name) for name in list(t) if "layers" in name])
    with pytest.raises(HippoError, match=r"24 missing: .* and 18 more") as caught:
        load_model(written.directory)
    assert len(str(caught.value)) < 2000


def test_a_name_in_both_styles_is_an_error(checkpoint):
    def double(tensors):
        tensors["model.norm.weight"] = tensors["model.language_model.norm.weight"]

    with pytest.raises(HippoError, match="1 stored under two names"):
        load_model(checkpoint(change=double, hub=False).directory)


def test_computed_tables_in_old_files_are_ignored(checkpoint):
    def add(tensors):
        tensors["model.language_model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(
            4, np.float32
        )
        tensors["model.visual.rotary_pos_emb.inv_freq"] = np.ones(4, np.float32)

    load_model(checkpoint(change=add).directory)


def test_foreign_architecture(checkpoint, config):
    written = checkpoint()
    config["model_type"] = "bert"
    (written.directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(HippoError, match="architecture 'bert' is not supported"):
        load_model(written.directory)


def test_config_of_another_size(checkpoint, config):
    written = checkpoint()
    config["num_hidden_layers"] = 10**9
    (written.directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(HippoError, match="config and weights are of different models"):
        load_model(written.directory)


def test_pickles_are_never_read(checkpoint):
    written = checkpoint()
    (written.directory / "model.safetensors").rename(written.directory / "pytorch_model.bin")
    with pytest.raises(HippoError, match=r"only pickled weights \(pytorch_model.bin\)"):
        load_model(written.directory)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("./nowhere", "no such directory"),
        ("/nowhere/at/all", "no such directory"),
        ("plain", "a hub id has the form organisation/name"),
        ("nobody/nothing", "hub cannot be reached"),
        ("", "give a directory or a hub id"),
    ],
)
def test_a_source_that_is_not_there(monkeypatch, tmp_path, source, words):
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(HippoError, match=words):
        load_model(source)


def test_hub_id_from_the_cache(checkpoint, monkeypatch, tmp_path):
    """Offline, a hub id is found where an earlier download left it, at its branch or commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    written = checkpoint(f"models--someone--tiny/snapshots/{commit}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path))
    for revision in None, "main", commit:
        model = load_model("someone/tiny", revision=revision)
        assert model.source == str(written.directory)
    assert_holds(model, written)
    with pytest.raises(HippoError, match="someone/tiny at revision 'v2'"):
        load_model("someone/tiny", revision="v2")


class ConnectionLost(Exception):
    """An error of an HTTP library."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub_errors.GatedRepoError, "request it there"),
        (hub_errors.RepositoryNotFoundError, "nor a repository on the hub"),
        (hub_errors.RevisionNotFoundError, "no such revision"),
        (hub_errors.HfHubHTTPError, "download from the hub failed: 503"),
        (OSError, "download from the hub failed: 503"),
        (ConnectionLost, "download from the hub failed: 503"),
    ],
)
def test_hub_errors_are_one_line(monkeypatch, error, words):
    def fail(*args, **options):
        assert options["revision"] == "v1" and "*.safetensors" in options["allow_patterns"]
        assert not any("bin" in pattern for pattern in options["allow_patterns"])
        raised = error.__new__(error)  # without the response that the hub's errors ask for
        raised.args = ("503\nmore",)
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(HippoError, match=words) as caught:
        load_model("someone/tiny", revision="v1")
    assert "\n" not in str(caught.value)


def test_a_file_as_source(checkpoint):
    with pytest.raises(HippoError, match="give the directory"):
        load_model(checkpoint().directory / "config.json")


def test_revision_of_a_directory(checkpoint):
    with pytest.raises(HippoError, match="a revision goes with a hub id"):
        load_model(checkpoint().directory, revision="main")


@pytest.mark.parametrize("dtype", ["int8", "float64", "bf17", 3, ["a"]], ids=str)
def test_unknown_dtype(checkpoint, dtype):
    with pytest.raises(HippoError, match="use one of float32, bfloat16, float16"):
        load_model(checkpoint().directory, dtype=dtype)


def test_directory_without_config(tmp_path: Path):
    with pytest.raises(HippoError, match=r"no config\.json here"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [("cpu", None, F32), ("tpu", None, BF16), ("gpu", "7.5", F16), ("gpu", "9.0", BF16)],
)
def test_default_dtype(platform, capability, expected):
    device = SimpleNamespace(platform=platform, compute_capability=capability)
    assert default_dtype(device) == expected
