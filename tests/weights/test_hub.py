"""Models by hub id, from a hub on the loopback address: what is asked for, and what can fail."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from support.hub import COMMIT, Hub

import hippo_jax as hj
from hippo_jax.architectures.parameters import values
from hippo_jax.cli import main as program
from hippo_jax.resources import checkpoint_directory
from hippo_jax.weights.source import locate

ID = "someone/tiny"
FIRST, SECOND = (f"model-{n:05d}-of-00002.safetensors" for n in (1, 2))
SMALL = {"config.json", "generation_config.json", "tokenizer.json"}
SMALL_AND_INDEX = {*SMALL, "model.safetensors.index.json"}


@pytest.fixture
def hub(checkpoint, monkeypatch, tmp_path):
    """A hub that holds one model in two shards, among files that are no part of it."""
    served = Hub()
    directory = checkpoint("served", shards=2).directory
    served.repositories[ID] = directory
    for other in ("pytorch_model.bin", "modeling_tiny.py", "onnx/model.safetensors"):
        (directory / other).parent.mkdir(exist_ok=True)
        (directory / other).write_bytes(b"x")
    served.use(monkeypatch, tmp_path / "cache")
    yield served
    served.close()
    huggingface_hub.close_session()


def refused(*words: str, capsys) -> str:
    """The line that the program ends with."""
    assert program.main(["convert", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("hippo: ")]
    assert len(lines) == 1 and err.endswith(lines[0] + "\n")
    return lines[0]


def disconnect(hub: Hub) -> None:
    hub.close()
    huggingface_hub.close_session()  # it keeps connections open


def assert_same(model, other):
    for path, array in values(other).items():
        np.testing.assert_array_equal(np.asarray(values(model)[path]), np.asarray(array))


def test_only_what_makes_the_model_is_downloaded_and_only_once(hub, capsys) -> None:
    local = hj.load_model(hub.repositories[ID])
    assert_same(hj.load_model(ID), local)
    assert sorted(hub.files()) == sorted({*SMALL_AND_INDEX, FIRST, SECOND})
    out, err = capsys.readouterr()
    assert out == "" and "Fetching 6 files: 100%" in err
    hub.got.clear()
    assert_same(hj.load_model(ID, revision=COMMIT), local)
    disconnect(hub)
    assert_same(hj.load_model(ID), local)
    assert hub.got == []


def test_the_program_shows_progress_beside_its_output(hub, tmp_path, capsys) -> None:
    assert program.main(["convert", ID, str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'out'} is complete\n"
    assert "Fetching 6 files: 100%" in err and "converting: 100 %" in err


@pytest.mark.slow
def test_an_answer_as_json_stays_one_object(hub, capsys) -> None:
    for role in "target", "draft":
        hub.repositories[f"hippo/{role}"] = checkpoint_directory("demo", role)
    words = ["--target", "hippo/target", "--draft", "hippo/draft", "--max-new-tokens", "4"]
    assert program.main(["generate", "--json", *words]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["tokens"]) == 4
    assert "Fetching" in err


def gate_listing(hub, patch):
    hub.hidden.add(ID)


def gate_files(hub, patch):
    hub.gated.add(ID)


def remove(hub, patch):
    del hub.repositories[ID]


def fail(hub, patch):
    hub.down = 503


def close(hub, patch):
    disconnect(hub)


def set_offline(hub, patch):
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()  # a session knows from its start


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (gate_listing, "request it there, then `hf auth login`"),
        (gate_files, "request it there, then `hf auth login`"),
        (remove, "nor a repository on the hub (or it is private)"),
        (fail, "not in the hub's cache, and the hub answers 503; try again later"),
        (close, "the hub cannot be reached; connect, or give the directory"),
        (set_offline, "the hub cannot be reached; connect, or give the directory"),
    ],
)
def test_a_hub_that_gives_nothing_is_one_line(
    hub, monkeypatch, tmp_path, capsys, wrong, words
) -> None:
    wrong(hub, monkeypatch)
    line = refused(ID, str(tmp_path / "out"), capsys=capsys)
    assert line.startswith(f"hippo: error: {ID}: ") and words in line
    assert not (tmp_path / "out").exists()


def test_a_revision_that_is_not_there(hub, tmp_path, capsys) -> None:
    line = refused(ID, str(tmp_path / "out"), "--revision", "v2", capsys=capsys)
    assert "someone/tiny at revision 'v2': the hub repository has no such revision" in line


def test_a_broken_connection_goes_on_from_the_byte(hub, monkeypatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.breaks[SECOND] = 5300
    assert_same(hj.load_model(ID), hj.load_model(hub.repositories[ID]))
    assert [asked for name, asked in hub.got if name == SECOND] == [None, "bytes=5000-"]


def test_what_a_failed_download_leaves_is_not_taken_for_whole(hub, tmp_path, capsys) -> None:
    hub.status[SECOND] = 500
    line = refused(ID, str(tmp_path / "out"), capsys=capsys)
    assert "download from the hub failed" in line and "500" in line and "are kept" in line
    hub.status.clear()
    hub.got.clear()
    with pytest.MonkeyPatch.context() as patch:
        set_offline(hub, patch)
        line = refused(ID, str(tmp_path / "out"), capsys=capsys)
        assert "an earlier download was not finished, and the hub cannot be reached" in line
    huggingface_hub.close_session()
    assert not (tmp_path / "out").exists()
    assert_same(hj.load_model(ID), hj.load_model(hub.repositories[ID]))
    assert hub.files() == [SECOND]  # what was whole is not asked for again


CHILD = """
import resource, sys
from hippo_jax.weights.source import locate
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
locate(sys.argv[1])
"""


def child(hub: Hub, cache: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, ID, *words],
        env={**os.environ, **hub.environment(cache), "NO_PROXY": "127.0.0.1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_download_that_was_killed_goes_on(hub, monkeypatch, tmp_path) -> None:
    cache = tmp_path / "home"
    hub.stalls[SECOND] = 5000
    running = child(hub, cache)
    assert hub.stalled.wait(60)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=60)
    hub.stalls.clear()
    hub.go_on.set()
    done = set(hub.files()) - {SECOND}
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    kept = {path.name for path in (cache / "hub").rglob("*") if path.is_symlink()}
    assert SECOND not in kept and kept <= done
    hub.got.clear()
    assert_same(hj.load_model(ID), hj.load_model(hub.repositories[ID]))
    assert SECOND in hub.files() and not kept & set(hub.files())


def test_a_full_disk_ends_the_download(hub, tmp_path) -> None:
    running = child(hub, tmp_path / "home", "20000")  # bytes a file: the shards have more
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    last = err.splitlines()[-1]
    assert "HippoError: someone/tiny: download from the hub failed" in last
    assert "File too large" in last
    kept = {path.name for path in (tmp_path / "home").rglob("*") if path.is_symlink()}
    assert not kept & {FIRST, SECOND}


def test_models_that_do_not_fit_are_refused_before_weights_are_downloaded(
    hub, checkpoint, config
) -> None:
    config["video_token_id"] = 35
    hub.repositories["someone/other"] = checkpoint("other", config=config).directory
    with pytest.raises(hj.HippoError, match="video_token_id"):
        hj.load_pair(target=ID, draft="someone/other")
    assert set(hub.files()) == SMALL_AND_INDEX
    assert locate(ID, weights=False).is_dir()
