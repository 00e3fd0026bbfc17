"""How far an evaluation is, and how long it will take."""

from __future__ import annotations

import sys
import time


class Progress:
    """One line on a terminal, rewritten; in a log a line for every tenth."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.began = time.monotonic()
        self.tenth = -1

    def __call__(self, before: int, done: int, total: int) -> None:
        """Samples that earlier runs did, those done by now, and all."""
        passed = time.monotonic() - self.began
        left = ""
        if before < done < total:
            left = f", {_time((total - done) * passed / (done - before))} left"
        resumed = f" ({before} of them earlier)" if before else ""
        line = f"{done} of {total} samples{resumed}{left}"
        if self.terminal:
            end = "\n" if done >= total else ""
            print(f"\r{line:<70}", end=end, file=sys.stderr, flush=True)
        elif 10 * done // max(1, total) > self.tenth:
            self.tenth = 10 * done // max(1, total)
            print(line, file=sys.stderr, flush=True)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
