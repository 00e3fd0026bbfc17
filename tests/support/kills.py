"""A conversion in a child process that is killed at a chosen moment."""

import signal
import subprocess
import sys
import time
from pathlib import Path

_CHILD = """
import sys
from hippo_jax.weights.convert import convert
print("ready", flush=True)
part_bytes = int(sys.argv[3]) or None
convert(sys.argv[1], sys.argv[2], dtype=sys.argv[4] or None, _part_bytes=part_bytes,
        progress=lambda done, total: print(done, total, flush=True))
"""


def convert_and_kill(
    source: Path, place: Path, after: float, *, part_bytes: int = 0, dtype: str = ""
) -> int:
    """Convert in a child, SIGKILL it so many seconds after its imports; its exit status."""
    line = [sys.executable, "-c", _CHILD, str(source), str(place), str(part_bytes), dtype]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=120)
    return child.returncode
