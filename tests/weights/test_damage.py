"""Damaged sources, and disks that are full: one clear line, and nothing half-written is used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hippo_jax.architectures.parameters import values
from hippo_jax.errors import HippoError
from hippo_jax.weights.convert import convert
from hippo_jax.weights.load import load_model

SECOND = "model-00002-of-00003.safetensors"


def truncate(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-100])


def truncate_in_header(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:200])


def empty(shard: Path) -> None:
    shard.write_bytes(b"")


def lengthen(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes() + bytes(8))


def change(shard: Path, old: bytes, new: bytes) -> None:
    raw = shard.read_bytes()
    assert raw.count(old, 0, 2000) and len(old) == len(new)
    shard.write_bytes(raw.replace(old, new, 1))


def flip_a_brace(shard: Path) -> None:
    change(shard, b'{"', b'["')


def flip_an_offset(shard: Path) -> None:
    change(shard, b'"data_offsets": [0, ', b'"data_offsets": [4, ')


def flip_a_name(shard: Path) -> None:
    change(shard, b"self_attn", b"self_bttn")


def flip_the_length(shard: Path) -> None:
    raw = bytearray(shard.read_bytes())
    raw[6] ^= 1
    shard.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, f"{SECOND}: truncated: 100 bytes of tensor"),
        (truncate_in_header, f"{SECOND}: corrupt or truncated: its header claims"),
        (empty, f"{SECOND}: truncated: 0 bytes are no safetensors file"),
        (lengthen, f"{SECOND}: corrupt: 8 bytes belong to no tensor"),
        (flip_a_brace, f"{SECOND}: corrupt header"),
        (flip_an_offset, f"{SECOND}: corrupt header: tensor"),
        (flip_a_name, "1 tensors are not in the shards it names: model"),
        (flip_the_length, f"{SECOND}: corrupt or truncated: its header claims"),
        (Path.unlink, f"1 of 3 shards are missing: {SECOND}; download them again"),
    ],
)
def test_a_bad_shard_is_named_and_nothing_is_written(checkpoint, tmp_path, damage, words) -> None:
    directory = checkpoint(shards=3).directory
    damage(directory / SECOND)
    for work in load_model, lambda source: convert(source, tmp_path / "out"):
        with pytest.raises(HippoError) as caught:
            work(directory)
        text = str(caught.value)
        assert words in text and "\n" not in text and len(text) < 600
    assert not (tmp_path / "out").exists()


def test_a_shard_that_is_damaged_while_it_is_converted(checkpoint, tmp_path) -> None:
    directory = checkpoint(shards=3).directory
    whole = (directory / SECOND).read_bytes()

    def damage(done: int, total: int) -> None:
        if done:
            truncate_in_header(directory / SECOND)

    with pytest.raises(HippoError, match="cannot read tensor"):
        convert(directory, tmp_path / "out", progress=damage, _part_bytes=10_000)
    with pytest.raises(HippoError, match="not finished"):
        load_model(tmp_path / "out")
    (directory / SECOND).write_bytes(whole)
    assert_same(load_model(convert(directory, tmp_path / "out")), load_model(directory))


def assert_same(model, other) -> None:
    for path, array in values(other).items():
        np.testing.assert_array_equal(np.asarray(values(model)[path]), np.asarray(array), path)


# Works under a limit for the size of a file, then without one where it was refused. One process for
# all limits: imports take longer than the work.
CHILD = """
import resource, sys
from pathlib import Path
from hippo_jax.errors import HippoError
from hippo_jax.weights.convert import convert
from hippo_jax.weights.export import save_hf
from hippo_jax.weights.load import load_model

what, source, place = sys.argv[1:4]
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def work(to):
    if what == "convert":
        convert(source, to, _part_bytes=30_000)
    else:
        save_hf(model, to)

model = load_model(source)
work(place + "/free")
for limit in sys.argv[4:]:
    to = f"{place}/{limit}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
    try:
        work(to)
        print("no error")
    except HippoError as error:
        print(str(error).replace(place, ""))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    try:
        load_model(to)
        print("taken for whole")
    except HippoError as error:
        print(str(error).replace(place, ""))
"""


def limited(what: str, source: Path, place: Path, limits: list[int]) -> list[tuple[str, str]]:
    """For each limit what the work said and what loading its result did."""
    line = [sys.executable, "-c", CHILD, what, str(source), str(place), *map(str, limits)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(limits), lines
    return list(zip(lines[::2], lines[1::2], strict=True))


def test_a_full_disk_while_converting(checkpoint, tmp_path) -> None:
    directory = checkpoint(shards=3).directory
    (tmp_path / "out").mkdir()
    free = convert(directory, tmp_path / "free", _part_bytes=30_000)
    sizes = {path: path.stat().st_size for path in free.rglob("*") if path.is_file()}
    data = max(size for path, size in sizes.items() if path.parent.name == "d")
    # Fails in the first state file, before a part, in a part: what its files hold varies a little.
    limits = [50, 600, data // 3]
    for said, loaded in limited("convert", directory, tmp_path / "out", limits):
        assert "File too large" in said
        assert "run the same command again, it goes on where it was" in said
        assert "not finished" in loaded or "no config.json here" in loaded
    begun = tmp_path / "out" / str(limits[-1])
    assert_same(load_model(convert(directory, begun, _part_bytes=30_000)), load_model(directory))


def test_a_full_disk_while_saving(checkpoint, tmp_path) -> None:
    directory = checkpoint().directory
    (tmp_path / "out").mkdir()
    for said, loaded in limited("save", directory, tmp_path / "out", [50, 100_000]):
        assert "cannot write here" in said
        assert "no config.json here" in loaded or "no safetensors weights" in loaded
        assert not list(tmp_path.glob("out/[0-9]*/*.safetensors*"))


FULL = """
mount -t tmpfs -o size="$4" tmpfs "$1" || exit 77
"$2" -m hippo_jax.cli.main convert "$3" "$1/out"
status=$?
ls "$1/out" | tr '\\n' ' '
exit $status
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a mount of one's own")
# Full while the arrays are opened, while they are written, beside them, and in the second part.
@pytest.mark.parametrize("size", ["30k", "40k", "120k", "160k"])
def test_a_file_system_that_is_full(checkpoint, tmp_path, size) -> None:
    directory = checkpoint(shards=3).directory
    (tmp_path / "small").mkdir()
    words = ["sh", str(tmp_path / "small"), sys.executable, str(directory), size]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", FULL, *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mount of one's own here")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("hippo: error: ") and "No space left on device" in last
    assert "Traceback" not in done.stderr
    assert "manifest.json" not in done.stdout.split()
