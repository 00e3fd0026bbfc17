"""One run of ffmpeg as a child process that neither outlives its caller's block nor hangs it."""

import contextlib
import io
import os
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from hippo_jax.errors import HippoError

# The file, in the folder of the run, into which ffmpeg lists frames.
LISTING = "frames.txt"
_LOG = "log.txt"
# A process that shows no progress for so long while it is waited for is ended.
STALL_SECONDS = 8.0
# No real file has so long a list of frames or of errors; one that makes ffmpeg loop has.
_MAX_LISTING_BYTES = 2**30
_NO_FFMPEG = (
    "no ffmpeg to read videos with ({}); pip install 'imageio[ffmpeg]' or let IMAGEIO_FFMPEG_EXE "
    "name an ffmpeg program"
)


class Ffmpeg:
    """Context manager around the process, which runs in `folder` and keeps its log there.

    level: how much ffmpeg says ("error", "info"). name: the file read, for messages. Progress is
    pixels that arrive or a LISTING that grows.
    """

    def __init__(self, arguments: list[str], folder: Path, *, level: str, name: str):
        self._arguments = arguments
        self._folder = folder
        self._level = level
        self._name = name
        self._received = 0
        self._waiting = False
        self._over = threading.Event()
        self._failure: str | None = None

    def __enter__(self) -> "Ffmpeg":
        command = [_executable(), "-hide_banner", "-nostdin", "-nostats", "-y", "-copyts"]
        command += ["-loglevel", self._level, *self._arguments]
        with (self._folder / _LOG).open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=self._folder,
                    bufsize=2**20,
                )
            except OSError as error:
                raise HippoError(_NO_FFMPEG.format(error)) from None
        assert self._process.stdout is not None
        # A buffered reader, which can fill an array in place.
        self._stdout = cast(io.BufferedReader, self._process.stdout)
        self._watch = threading.Thread(target=self._watch_progress, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._stdout.close()
        self._watch.join()

    def read_image(self) -> np.ndarray | None:
        """Next PPM image as uint8 [H, W, 3]; None at the end of the stream."""
        self._waiting = True
        header = [self._stdout.readline() for _ in range(3)]
        if header[0] != b"P6\n" or header[2] != b"255\n":
            self._check_failure()
            return None
        width, height = (int(number) for number in header[1].split())
        pixels = np.empty((height, width, 3), np.uint8)
        view = pixels.reshape(-1).data
        place = 0
        while place < len(view):
            count = self._stdout.readinto(view[place : place + 2**20])
            if not count:
                self._check_failure()
                return None
            place += count
            self._received += count
        self._waiting = False
        return pixels

    def wait(self) -> None:
        """Waits for the end of the process; HippoError if it had to be stopped."""
        self._waiting = True
        while self._stdout.read(2**20):
            pass
        self._process.wait()
        self._waiting = False
        self._check_failure()

    def log(self) -> str:
        """The beginning and the end of what ffmpeg said."""
        with (self._folder / _LOG).open("rb") as file:
            head = file.read(2**18)
            file.seek(max(len(head), file.seek(0, os.SEEK_END) - 2**18))
            return (head + file.read()).decode("utf-8", "replace")

    def _check_failure(self) -> None:
        self._waiting = False
        if self._failure:
            raise HippoError(self._failure)

    def _watch_progress(self) -> None:
        state, since = None, time.monotonic()
        while not self._over.wait(0.1):
            sizes = [_size(self._folder / name) for name in (LISTING, _LOG)]
            now = (self._received, sizes[0], self._waiting)
            if now != state or not self._waiting:
                state, since = now, time.monotonic()
            if time.monotonic() - since > STALL_SECONDS:
                self._failure = (
                    f"reading {self._name} made no progress for {STALL_SECONDS:.0f} s and was "
                    "stopped; the file is damaged, or the disk or machine too slow"
                )
            elif max(sizes) > _MAX_LISTING_BYTES:
                self._failure = f"{self._name} does not end (damaged?); cut or re-encode it"
            if self._failure:
                self._process.kill()
                return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextlib.contextmanager
def no_fork_warning() -> Iterator[None]:
    """imageio-ffmpeg starts programs by a fork, of which jax warns; the child only executes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
        yield


def _executable() -> str:
    try:
        import imageio_ffmpeg

        with no_fork_warning():
            program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise HippoError(_NO_FFMPEG.format(error)) from None
    # The process runs in another folder: a relative path must not follow it there.
    return os.path.abspath(program) if os.path.dirname(program) else program
