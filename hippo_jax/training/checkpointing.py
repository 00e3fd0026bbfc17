"""Checkpoints of a run: one file a stage, replaced as a whole, so a kill loses little."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.training.optimizer import OptimizerState, Weights, initial_state


class Progress(NamedTuple):
    """Where a stage stands."""

    weights: Weights
    state: OptimizerState
    step: int  # steps done
    total: int  # steps planned: it shapes the learning rate


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An `.npz` under a temporary name, renamed when it is whole."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise HippoError(f"{path} cannot be read ({error}); delete it to train on") from error


def save_progress(path: Path, progress: Progress) -> None:
    """Weights, moments and step of a stage."""
    groups = {
        "weights": progress.weights,
        "first": progress.state.first,
        "second": progress.state.second,
    }
    arrays = {
        f"{group}/{name}": np.asarray(jax.device_get(value))
        for group, tree in groups.items()
        for name, value in tree.items()
    }
    arrays["step"] = np.array([progress.step, progress.total])
    save_arrays(path, arrays)


def load_progress(path: Path) -> Progress:
    """What `save_progress` wrote."""
    arrays = load_arrays(path)
    step, total = (int(v) for v in arrays.pop("step"))
    groups: dict[str, Weights] = {"weights": {}, "first": {}, "second": {}}
    for key, value in arrays.items():
        group, name = key.split("/", 1)
        groups[group][name] = jnp.asarray(value)
    state = OptimizerState(groups["first"], groups["second"], jnp.asarray(step, jnp.int32))
    return Progress(groups["weights"], state, step, total)


def fresh(weights: Weights, total: int) -> Progress:
    """The start of a stage."""
    return Progress(weights, initial_state(weights), 0, total)


def save_weights(path: Path, weights: Weights) -> None:
    save_arrays(path, {name: np.asarray(jax.device_get(v)) for name, v in weights.items()})


def load_weights(path: Path) -> Weights:
    return {name: jnp.asarray(value) for name, value in load_arrays(path).items()}
