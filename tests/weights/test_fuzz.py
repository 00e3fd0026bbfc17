"""Garbled checkpoints end in a model or in one clear line, within seconds and without a traceback.

One child process works through many mutations: a case that hangs is shot by a watchdog with the
traceback of where it hung, one that raises anything but HippoError is reported with its seed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = r'''
import faulthandler, json, random, shutil, signal, sys, traceback
from pathlib import Path
from hippo_jax.errors import HippoError
from hippo_jax.weights.load import load_model

VALUES = [-1, 0, 1, 3, 10**30, 2**63, 1e400, float("nan"), 0.5, "", "x", "a" * 5000, None, True,
          [], [[]], [1, 2, 3], {}, {"a": {}}, ["../x.safetensors"], "\u0000", -(2**70)]

def swap(value, chance):
    """A JSON value with one random node replaced or removed."""
    nodes = []
    def collect(node):
        for key in (node if isinstance(node, dict) else range(len(node))):
            nodes.append((node, key))
            if isinstance(node[key], (dict, list)):
                collect(node[key])
    collect(value)
    if not nodes:
        return value
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        node, key = chance.choice(nodes)
        how = chance.random()
        if how < 0.15 and isinstance(node, dict):
            node.pop(key, None)
        elif how < 0.3 and isinstance(node, dict):
            node[chance.choice(["x", "", "lm_head.weight", "__metadata__"])] = node.get(key)
        elif how < 0.5 and isinstance(node, dict):
            node[key] = chance.choice(VALUES)
        elif isinstance(node, list) and key < len(node) and isinstance(node[key], int):
            node[key] = chance.choice([node[key] + 1, node[key] - 1, node[key] * 2, *VALUES[:8]])
        elif isinstance(node, dict) or key < len(node):
            node[key] = chance.choice(VALUES)
    return value

def garble(raw, chance):
    """Bytes with a few of them changed, cut, repeated or replaced."""
    raw = bytearray(raw)
    how = chance.randrange(7)
    if how == 0:
        return bytes(raw[: chance.randrange(len(raw) + 1)])
    if how == 1:
        return bytes(raw) + bytes(chance.randrange(256) for _ in range(chance.randrange(1, 40)))
    if how == 2:
        at = chance.randrange(len(raw) + 1)
        return bytes(raw[:at]) + bytes(raw[at:][chance.randrange(1, 60):])
    if how == 3:
        return chance.choice([b"", b"[" * 100_000, b'{"a":' * 50_000, b"null", b"{}", b"[]",
                              b"\xff\xfe", b"1" * 10_000, b"\x80\x04K\x01."])
    for _ in range(chance.choice([1, 1, 2, 8])):
        if raw:
            raw[chance.randrange(len(raw))] = chance.choice([0, 10, 34, 44, 48, 57, 91, 123, 255])
    return bytes(raw)

def safetensors(raw, chance):
    length = int.from_bytes(raw[:8], "little")
    header, body = raw[8 : 8 + length], raw[8 + length :]
    how = chance.randrange(4)
    if how == 0:  # the length field
        new = chance.choice([0, 1, length - 1, length + 1, len(raw), len(raw) - 8, 99_999_999,
                             100_000_001, 2**31, 2**63, 2**64 - 1, chance.randrange(2**64)])
        return new.to_bytes(8, "little") + header + body
    if how == 1:  # the header as JSON
        header = json.dumps(swap(json.loads(header), chance)).encode()
    elif how == 2:  # the header as bytes
        header = garble(header, chance)
    else:
        return garble(raw, chance)
    return len(header).to_bytes(8, "little") + header + body

def mutate(path, chance):
    raw = path.read_bytes()
    if path.suffix == ".safetensors":
        raw = safetensors(raw, chance)
    elif path.suffix == ".json" and chance.random() < 0.7:
        raw = json.dumps(swap(json.loads(raw), chance)).encode()
    else:
        raw = garble(raw, chance)
    if chance.random() < 0.03:
        path.unlink()
    else:
        path.write_bytes(raw)

work, first, last, *sources = sys.argv[1:]
outcomes = {"loaded": 0, "refused": 0}
faulthandler.register(signal.SIGPROF, chain=True)
for seed in range(int(first), int(last)):
    chance = random.Random(seed)
    place = Path(work) / "case"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sources[seed % len(sources)], place)
    names = sorted(path for path in place.rglob("*") if path.is_file())
    # One file of each kind is as likely, however many parts there are.
    kinds = {}
    for path in names:
        kinds.setdefault(path.name if path.suffix == ".json" else path.suffix, []).append(path)
    mutate(chance.choice(kinds[chance.choice(sorted(kinds))]), chance)
    # Work of too long, by the processor's clock, or a wait, by the wall's.
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    faulthandler.dump_traceback_later(6 * LIMIT, exit=True)
    print(seed, file=sys.stderr, flush=True)
    try:
        load_model(place)
        outcomes["loaded"] += 1
    except HippoError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 3000, (seed, text[:2000])
        outcomes["refused"] += 1
    except BaseException:
        traceback.print_exc()
        sys.exit(f"seed {seed}: not a HippoError")
    faulthandler.cancel_dump_traceback_later()
# Not ru_maxrss: a child inherits what its parent took before it was forked.
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0 kB"]
outcomes["peak"] = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(json.dumps(outcomes))
'''
# Processor seconds that a case may take.
LIMIT = 10


def drive(checkpoint, tmp_path: Path, first: int, last: int) -> dict[str, int]:
    from hippo_jax.weights.convert import convert

    single = checkpoint("single").directory
    sharded = checkpoint("sharded", shards=3, hub=False).directory
    made = convert(single, tmp_path / "made", _part_bytes=20_000)
    line = [sys.executable, "-c", DRIVER.replace("LIMIT", str(LIMIT)), str(tmp_path)]
    done = subprocess.run(
        [*line, str(first), str(last), str(single), str(sharded), str(made)],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_garbled_checkpoints(checkpoint, tmp_path):
    outcomes = drive(checkpoint, tmp_path, 0, 60)
    assert outcomes["loaded"] + outcomes["refused"] == 60 and outcomes["refused"] > 25


@pytest.mark.slow
def test_many_garbled_checkpoints(checkpoint, tmp_path):
    outcomes = drive(checkpoint, tmp_path, 1000, 3400)
    assert outcomes["loaded"] + outcomes["refused"] == 2400 and outcomes["refused"] > 1000
    assert outcomes["peak"] < 1 << 20  # kilobytes: no header made us ask for a gigabyte
