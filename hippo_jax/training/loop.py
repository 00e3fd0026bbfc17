"""The loop every stage shares: batches ahead of time, a progress line, checkpoints, resumption."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.training.batches import Arrays, prefetch
from hippo_jax.training.checkpointing import Progress, fresh, load_progress, save_progress
from hippo_jax.training.optimizer import OptimizerState, Weights, schedule

Step = Callable[
    [Weights, OptimizerState, Any, jax.Array], tuple[Weights, OptimizerState, dict[str, jax.Array]]
]


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        make: `make(step=..., **options)` gives a batch (numpy, in a worker process).
        update: the jitted step.
        scale: of the learning rates.
        watch: called with the progress every `watch_every` steps and at the end.
    """

    name: str
    total: int
    make: Callable[..., Arrays]
    options: dict[str, Any]
    update: Step
    watch: Callable[[Progress], None] | None = None
    watch_every: int = 100
    decay: float = 0.6
    scale: float = 1.0
    save_seconds: float = 120.0


def run_stage(directory: Path, stage: Stage, start: Callable[[], Weights]) -> Weights:
    """Runs a stage, or what is left of it; returns its final weights."""
    path = directory / f"{stage.name}.npz"
    if path.exists():
        progress = load_progress(path)._replace(total=stage.total)
        say(f"{stage.name}: going on at step {progress.step} of {stage.total}")
    else:
        progress = fresh(start(), stage.total)
    if progress.step >= stage.total:
        return progress.weights
    weights, state = progress.weights, progress.state
    meter = _Meter(stage, progress.step)
    saved = time.monotonic()
    batches = prefetch(stage.make, progress.step, stage.total, **stage.options)
    for step, batch in enumerate(batches, progress.step):
        rate = jnp.float32(stage.scale * schedule(step, stage.total, decay=stage.decay))
        weights, state, figures = stage.update(weights, state, batch, rate)
        meter.add(step, figures)
        done = step + 1
        last = done == stage.total
        if last or time.monotonic() - saved > stage.save_seconds:
            save_progress(path, Progress(weights, state, done, stage.total))
            saved = time.monotonic()
        if stage.watch is not None and (last or done % stage.watch_every == 0):
            stage.watch(Progress(weights, state, done, stage.total))
    return weights


def say(line: str) -> None:
    """One line of the log, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


class _Meter:
    """Averages figures and prints a line about twice a minute."""

    def __init__(self, stage: Stage, first: int) -> None:
        self.stage, self.first = stage, first
        self.began: float | None = None
        self.printed = time.monotonic()
        self.recent: list[dict[str, jax.Array]] = []

    def add(self, step: int, figures: dict[str, jax.Array]) -> None:
        self.recent.append(figures)
        jax.block_until_ready(figures)
        now = time.monotonic()
        if self.began is None:  # the first step compiled
            self.began, self.first = now, step
            return
        if now - self.printed < 20 and step + 1 < self.stage.total:
            return
        pace = (now - self.began) / max(1, step - self.first)
        minutes = pace * (self.stage.total - step - 1) / 60
        text = "  ".join(
            f"{name} {np.mean([float(f[name]) for f in self.recent if name in f]):.3f}"
            for name in figures
        )
        say(
            f"{self.stage.name} {step + 1}/{self.stage.total}  {pace:.2f} s/step  "
            f"{minutes:.1f} min left  {text}"
        )
        self.printed, self.recent = now, []
