"""A converted directory loads to the same model, and an unfinished one is never taken for it."""

import argparse
import json
import random
import signal

import jax
import ml_dtypes
import numpy as np
import pytest
from support.kills import convert_and_kill

from hippo_jax.architectures.parameters import values
from hippo_jax.cli import convert as command
from hippo_jax.errors import HippoError
from hippo_jax.weights import convert as convert_module
from hippo_jax.weights import orbax_save
from hippo_jax.weights.convert import convert, plan
from hippo_jax.weights.load import load_model

SMALL = 10_000  # bytes a part: the tiny model has five


def assert_same(model, other):
    left, right = values(model), values(other)
    assert set(left) == set(right)
    for path, array in left.items():
        assert array.dtype == right[path].dtype
        np.testing.assert_array_equal(np.asarray(array), np.asarray(right[path]), err_msg=path)


class Stop(Exception):
    """Stands for a kill inside a test."""


def stop_after(parts):
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) > parts:
            raise Stop

    return progress


def test_round_trip(checkpoint, tmp_path):
    written = checkpoint(shards=2)
    seen = []
    place = convert(
        written.directory,
        tmp_path / "out",
        progress=lambda done, total: seen.append((done, total)),
        _part_bytes=SMALL,
    )
    model = load_model(place)
    assert_same(model, load_model(written.directory))
    assert model.source == str(place)
    assert model.config == load_model(written.directory).config
    assert (place / "tokenizer.json").is_file()
    assert not any(array.committed for array in values(model).values())
    assert not list(place.rglob("*.tmp")) and not (place / "unfinished.json").exists()
    assert len(seen) > 4 and seen == sorted(seen) and seen[-1][0] == seen[-1][1]


def test_weights_larger_than_a_part_are_cut(checkpoint, config, tmp_path):
    config["vocab_size"] = 240
    written = checkpoint(config=config)
    place = convert(written.directory, tmp_path / "out", _part_bytes=SMALL)
    tensors = json.loads((place / "manifest.json").read_text())["tensors"]
    assert len(tensors["decoder.embedding"]["pieces"]) == 2  # 240 x 16 float32: 15 kB
    mesh = jax.make_mesh((2,), ("tp",), devices=jax.devices()[:2])
    model = load_model(place, mesh=mesh)
    assert_same(model, load_model(written.directory))
    assert values(model)["decoder.embedding"].sharding.spec == jax.P("tp", None)


def test_pieces_of_a_weight_that_lie_in_one_part(checkpoint, tmp_path, monkeypatch):
    written = checkpoint()
    monkeypatch.setattr(convert_module, "_LARGEST_PIECE", 600)
    monkeypatch.setattr(orbax_save, "_CHUNK", 200)
    place = convert(written.directory, tmp_path / "out", _part_bytes=SMALL)
    pieces = json.loads((place / "manifest.json").read_text())["tensors"]["decoder.embedding"]
    # Nine rows of 64 bytes at a time.
    assert pieces["pieces"] == [[0, start, min(start + 9, 40)] for start in range(0, 40, 9)]
    monkeypatch.setattr("hippo_jax.weights.converted._GROUP", 1000)
    assert_same(load_model(place), load_model(written.directory))
    # What an earlier release began with other pieces is not gone on with.
    begun = tmp_path / "begun"
    with pytest.raises(Stop):
        convert(written.directory, begun, progress=stop_after(2), _part_bytes=SMALL)
    monkeypatch.undo()
    with pytest.raises(HippoError, match="unfinished conversion"):
        convert(written.directory, begun)


def test_parts_stay_below_their_size(checkpoint):
    from hippo_jax.architectures.parameters import declared

    weights = declared(load_model(checkpoint().directory))
    tensors = plan(weights, 4, SMALL)
    filled = {}
    for path, weight in tensors.items():
        assert weight.pieces[-1].stop == weights[path].shape[0]
        for piece in weight.pieces:
            size = (piece.stop - piece.start) * 4 * int(np.prod(weight.shape[1:]))
            filled[piece.part] = filled.get(piece.part, 0) + size
    assert max(filled.values()) <= SMALL and sorted(filled) == list(range(len(filled)))


@pytest.mark.parametrize("asked", [None, "float32", "float16"])
def test_dtype(checkpoint, tmp_path, asked):
    written = checkpoint(dtype=np.dtype(ml_dtypes.bfloat16))
    place = convert(written.directory, tmp_path / "out", dtype=asked)
    stored = json.loads((place / "manifest.json").read_text())["dtype"]
    assert stored == (asked or "bfloat16")
    assert_same(
        load_model(place, dtype="float32"),
        _via(written, stored),
    )


def _via(written, dtype):
    """The source rounded to `dtype`, then widened."""
    model = load_model(written.directory, dtype=dtype)
    return jax.tree.map(lambda array: array.astype(np.float32), model)


def test_tied_without_saying_so(checkpoint, tmp_path):
    written = checkpoint(change=lambda tensors: tensors.pop("lm_head.weight"))
    place = convert(written.directory, tmp_path / "out")
    assert load_model(place).config.text.tied
    assert_same(load_model(place), load_model(written.directory))


def test_goes_on_where_it_was(checkpoint, tmp_path, monkeypatch):
    written = checkpoint()
    place = tmp_path / "out"
    with pytest.raises(Stop):
        convert(written.directory, place, progress=stop_after(3), _part_bytes=SMALL)
    with pytest.raises(HippoError, match="run the same `hippo convert` command again"):
        load_model(place)
    parts = []
    write = convert_module._write_part
    monkeypatch.setattr(convert_module, "_write_part", lambda *a: parts.append(a[2]) or write(*a))
    # A half-written part of the run before, which must not be taken for a whole one.
    half = place / "part-00003.tmp"
    half.mkdir()
    (half / "files.json").write_text("{}")
    convert(written.directory, place)
    assert parts[0] == 3 and parts == list(range(3, 3 + len(parts)))
    assert_same(load_model(place), load_model(written.directory))


def test_a_stop_at_four_fifths_leaves_less_than_a_quarter(
    checkpoint, config, tmp_path, monkeypatch
):
    config["intermediate_size"] = 4000  # a megabyte and a half, in parts of the usual size
    written = checkpoint(config=config)
    place = tmp_path / "out"
    totals = []

    def stop(done, total):
        totals.append(total)
        if done >= 0.8 * total:
            raise Stop

    with pytest.raises(Stop):
        convert(written.directory, place, progress=stop)
    again = []
    write = convert_module._write_part

    def count(checkpoint, place, part, pieces, tensors, dtype):
        again.extend(
            convert_module._piece_bytes(tensors[path], piece, dtype) for path, piece in pieces
        )
        return write(checkpoint, place, part, pieces, tensors, dtype)

    monkeypatch.setattr(convert_module, "_write_part", count)
    convert(written.directory, place)
    assert 0 < sum(again) < 0.25 * totals[0]


def test_a_finished_one_is_not_redone(checkpoint, tmp_path, monkeypatch):
    written = checkpoint()
    place = convert(written.directory, tmp_path / "out")
    monkeypatch.setattr(convert_module, "_write_part", None)  # calling it would fail
    before = (place / "manifest.json").stat().st_mtime_ns
    convert(written.directory, place)
    assert (place / "manifest.json").stat().st_mtime_ns == before
    # A copy of the source elsewhere is the same source.
    copy = checkpoint("copy")
    convert(copy.directory, place)
    for other in ({"dtype": "float16"}, {}):
        source = written if other else checkpoint("tuned", seed=1)
        with pytest.raises(HippoError, match="finished conversion to float32 of another"):
            convert(source.directory, place, **other)


def test_an_unfinished_one_of_another_source_is_refused(checkpoint, tmp_path):
    written = checkpoint()
    place = tmp_path / "out"
    with pytest.raises(Stop):
        convert(written.directory, place, progress=stop_after(2), _part_bytes=SMALL)
    with pytest.raises(HippoError, match="unfinished conversion to float32 of another"):
        convert(written.directory, place, dtype="bfloat16")
    with pytest.raises(HippoError, match="unfinished conversion to float32 of another"):
        convert(checkpoint("tuned", seed=1).directory, place)
    convert(written.directory, place)
    assert_same(load_model(place), load_model(written.directory))


def test_a_destination_with_something_else_is_refused(checkpoint, tmp_path):
    written = checkpoint()
    place = tmp_path / "out"
    place.mkdir()
    (place / "thesis.tex").write_text("x")
    with pytest.raises(HippoError, match=r"holds something else \(thesis.tex\)"):
        convert(written.directory, place)
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]
    with pytest.raises(HippoError, match="holds something else"):
        convert(written.directory, written.directory)
    with pytest.raises(HippoError, match=r"thesis\.tex: File exists"):
        convert(written.directory, place / "thesis.tex")


def test_a_converted_source_is_refused(checkpoint, tmp_path):
    place = convert(checkpoint().directory, tmp_path / "out")
    with pytest.raises(HippoError, match="this is a converted directory"):
        convert(place, tmp_path / "again")


def test_sources_that_do_not_load_write_nothing_or_stay_unfinished(checkpoint, tmp_path):
    missing = checkpoint("a", change=lambda tensors: tensors.pop("model.visual.merger.ln_q.weight"))
    with pytest.raises(HippoError, match="1 missing"):
        convert(missing.directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()

    def spoil(tensors):
        tensors["model.language_model.norm.weight"][0] = np.nan
        tensors["model.visual.merger.ln_q.weight"][0] = np.nan

    with pytest.raises(HippoError, match="2 with NaN or infinite values"):
        convert(checkpoint("b", change=spoil).directory, tmp_path / "nan")
    with pytest.raises(HippoError, match="not finished"):
        load_model(tmp_path / "nan")


def test_two_processes_do_not_share_a_destination(checkpoint, tmp_path):
    written = checkpoint()

    def second(done, total):
        convert(written.directory, tmp_path / "out")

    with pytest.raises(HippoError, match="another process is converting"):
        convert(written.directory, tmp_path / "out", progress=second)


def _damage_bytes(place):
    victim = max(place.glob("part-*/weights/**/d/*"), key=lambda path: path.stat().st_size)
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 1
    victim.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_damage_bytes, "1 files whose checksum is wrong"),
        (lambda place: (place / "part-00000" / "files.json").unlink(), "1 files missing"),
        (lambda place: (place / "part-00000").rename(place / "gone"), "files missing"),
        (lambda place: (place / "config.json").write_text("{}"), r"wrong \(config.json\)"),
        (lambda place: (place / "manifest.json").write_text("{"), "not readable as JSON"),
        (lambda place: (place / "manifest.json").write_text("{}"), "convert the model again"),
        (lambda place: (place / "manifest.json").unlink(), "no safetensors weights"),
    ],
)
def test_damage_is_one_clear_line(checkpoint, tmp_path, damage, words):
    place = convert(checkpoint().directory, tmp_path / "out")
    damage(place)
    with pytest.raises(HippoError, match=words) as caught:
        load_model(place)
    assert "\n" not in str(caught.value)


def kill_and_go_on(written, place, kills, longest, part_bytes, dtype="float32"):
    chance = random.Random(0)
    killed = 0
    for _ in range(kills):
        after = chance.uniform(0, longest)
        status = convert_and_kill(
            written.directory, place, after, part_bytes=part_bytes, dtype=dtype
        )
        if status == 0:  # it was quicker than the kill
            break
        assert status == -signal.SIGKILL
        killed += 1
        if place.exists() and not (place / "manifest.json").exists():
            with pytest.raises(HippoError):
                load_model(place)
    convert(written.directory, place, dtype=dtype)
    assert_same(load_model(place, dtype=dtype), load_model(written.directory, dtype=dtype))
    return killed


def test_killed_at_a_random_moment(checkpoint, tmp_path):
    assert kill_and_go_on(checkpoint(), tmp_path / "out", 1, 0.3, 3000) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "dtype"), [(1, "float32"), (3, "bfloat16")])
def test_killed_ten_times(checkpoint, tmp_path, shards, dtype):
    written = checkpoint(shards=shards)
    killed = 0
    for number in range(5):
        killed += kill_and_go_on(written, tmp_path / f"out{number}", 2, 1.2, 300, dtype)
    assert killed >= 7


def test_command_line(checkpoint, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    written = checkpoint()
    place = tmp_path / "out"
    args = [str(written.directory), str(place)]
    assert command.run(parser.parse_args(["convert", *args, "--dtype", "bfloat16"])) == 0
    captured = capsys.readouterr()
    assert "is complete" in captured.out and "100 %" in captured.err
    assert values(load_model(place, dtype="bfloat16"))["decoder.embedding"].dtype == "bfloat16"
    with pytest.raises(HippoError, match="another source or dtype"):
        command.run(parser.parse_args(["convert", *args]))
