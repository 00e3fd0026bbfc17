"""Feeds damaged files to the video reader, in a child process that a watchdog guards.

    python tests/inputs/fuzz_video.py [--count 2000] [--seed 0] [--seconds 10]

Every mutation must end within the time as a video (exit status 0) or as a HippoError of one line
(2): no other exception, no crash, no hang, no process left behind. The child runs many mutations;
if one kills or hangs it, a new child goes on behind it. Exit status 1 if any failed.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from queue import Empty, Queue

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]


def seeds_files(folder: Path) -> list[Path]:
    """The sound files that are damaged: small, so that many mutations hit headers."""
    from inputs import clips

    size = (16, 32)
    files = [
        clips.write(folder / "seed.mp4", 12, size=size),
        clips.write(folder / "fast.mp4", 12, "-movflags", "+faststart", size=size),
        clips.write(folder / "parts.mp4", 12, "-movflags", "frag_keyframe+empty_moov", size=size),
        clips.write(folder / "seed.mov", 12, size=size),
        clips.write(folder / "seed.webm", 12, size=size),
        clips.write(folder / "seed.mkv", 12, size=size),
        clips.write(folder / "seed.gif", 12, size=size),
        clips.write(folder / "seed.avi", 12, size=size),
    ]
    turned = folder / "turned.mp4"
    clips.ffmpeg("-display_rotation", "90", "-i", files[0], "-c", "copy", turned)
    return [*files, turned]


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """One to four random damages; half of them within the first 600 bytes."""
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        size = len(data)
        if size < 8:
            break
        reach = min(size, 600) if random.random() < 0.5 else size
        at = int(random.integers(0, reach))
        length = int(random.integers(1, 64))
        kind = random.integers(0, 8)
        if kind == 0:  # bits
            for place in random.integers(0, reach, random.integers(1, 20)):
                data[place] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            data[at : at + length] = random.bytes(length)
        elif kind == 2:
            data[at : at + length] = bytes([int(random.choice([0, 255, 127]))]) * length
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = random.bytes(length)
        elif kind == 5:
            data[at:at] = data[at : at + length * 8]
        elif kind == 6:  # an extreme number
            data[at : at + 4] = random.choice(
                [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1", b"\0\1\0\0"]
            )
        else:
            del data[int(random.integers(0, size)) :]
    return bytes(data)


def one(number: int, seed: int, files: list[tuple[str, bytes]], folder: Path) -> tuple[int, str]:
    """Runs mutation `number`; returns the status and the message."""
    from hippo_jax.errors import HippoError
    from hippo_jax.inputs.processor import ProcessorConfig
    from hippo_jax.inputs.video import read_video

    random = np.random.default_rng([seed, number])
    name, content = files[number % len(files)]
    path = folder / f"{number}{Path(name).suffix}"
    path.write_bytes(mutate(content, random))
    choices = [{}, {"fps": 2}, {"num_frames": 4}, {"start": 0.3}, {"end": 0.8, "fps": 5}]
    options = choices[int(random.integers(0, len(choices)))]
    limits = ProcessorConfig(min_pixels=784, max_pixels=7840)
    try:
        video = read_video(path, **options, limits=limits, resize=bool(random.integers(0, 2)))
    except HippoError as error:
        message = str(error)
        return (2, message) if "\n" not in message else (1, f"several lines: {message!r}")
    except Exception as error:
        return 1, f"{type(error).__name__}: {error}"
    finally:
        path.unlink()
    good = video.frames.ndim == 4 and len(video.frames) and video.fps > 0
    return (0, str(video.frames.shape)) if good else (1, f"odd video {video.frames.shape}")


def child(first: int, count: int, seed: int, folder: Path) -> None:
    """Runs mutations first..count, announcing each before and after."""
    files = [(path.name, path.read_bytes()) for path in sorted((folder / "seeds").iterdir())]
    for number in range(first, count):
        print("start", number, flush=True)
        status, message = one(number, seed, files, folder)
        print("done", number, status, ascii(message), flush=True)


def fuzz(count: int, seed: int, seconds: float) -> tuple[Counter[str], list[str]]:
    """Runs all mutations; returns how often each outcome came, and the failures."""
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest = (0.0, 0)
    retried: set[int] = set()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        seeds_files(folder / "seeds")
        following = 0
        while following < count:
            command = [sys.executable, str(HERE / "fuzz_video.py"), "--child", str(following)]
            command += ["--count", str(count), "--seed", str(seed), "--folder", name]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            lines: Queue[str] = Queue()
            assert process.stdout is not None
            threading.Thread(target=lambda p=process, q=lines: [*map(q.put, p.stdout)]).start()
            again = False
            begun = None  # moment at which the running mutation began; imports come before
            while True:
                try:
                    words = lines.get(timeout=0.05).split(maxsplit=3)
                except Empty:
                    if begun and time.monotonic() - begun > seconds:
                        # A busy machine is no hang: once more, and then it counts.
                        again = following not in retried
                        retried.add(following)
                        if not again:
                            failures.append(f"{following}: longer than {seconds} s, twice")
                    elif process.poll() is None or not lines.empty():
                        continue
                    elif following < count:
                        failures.append(f"{following}: the child died ({process.returncode})")
                    break
                if words[0] == "start":
                    following, begun = int(words[1]), time.monotonic()
                elif words[0] == "done":
                    assert begun is not None
                    took = time.monotonic() - begun
                    slowest = max(slowest, (took, int(words[1])))
                    outcomes[words[2]] += 1
                    if words[2] not in ("0", "2"):
                        failures.append(f"{words[1]}: {words[3].strip()}")
                    following, begun = int(words[1]) + 1, None
            if following < count and not again:
                following += 1
            process.kill()
            process.wait()
    outcomes["slowest_ms"], outcomes["slowest_number"] = round(slowest[0] * 1000), slowest[1]
    outcomes["retried"] = len(retried)
    return outcomes, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(options.child, options.count, options.seed, options.folder)
        return
    outcomes, failures = fuzz(options.count, options.seed, options.seconds)
    print(dict(outcomes))
    print(*failures, sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
