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
    """Weights, the optimizer's moments and step of a stage."""
    state = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(progress.state))}
    arrays = {
        f"{group}/{name}": np.asarray(jax.device_get(value))
        for group, tree in (("weights", progress.weights), ("state", state))
        for name, value in tree.items()
    }
    arrays["step"] = np.array([progress.step, progress.total])
    save_arrays(path, arrays)


def load_progress(path: Path) -> Progress:
    """What `save_progress` wrote."""
    arrays = load_arrays(path)
    try:
        step, total = (int(v) for v in arrays.pop("step"))
        weights = {
            key.removeprefix("weights/"): jnp.asarray(value)
            for key, value in arrays.items()
            if key.startswith("weights/")
        }
        shapes, structure = jax.tree.flatten(jax.eval_shape(initial_state, weights))
        leaves = [jnp.asarray(arrays[f"state/{i}"]) for i in range(len(shapes))]
    except KeyError as error:
        raise HippoError(
            f"{path} was written by another version; delete it to train anew"
        ) from error
    return Progress(weights, jax.tree.unflatten(structure, leaves), step, total)


def fresh(weights: Weights, total: int) -> Progress:
    """The start of a stage."""
    return Progress(weights, initial_state(weights), 0, total)


def save_weights(path: Path, weights: Weights) -> None:
    save_arrays(path, {name: np.asarray(jax.device_get(v)) for name, v in weights.items()})


def load_weights(path: Path) -> Weights:
    return {name: jnp.asarray(value) for name, value in load_arrays(path).items()}
