"""Placements of the embedded pair on forced CPU devices, and its configs."""

import functools
from pathlib import Path

import jax

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.weights.checkpoint import open_checkpoint


def source(role: str) -> Path:
    """The embedded weights of a role."""
    return resources.checkpoint_directory("demo", role)


@functools.cache
def configs() -> tuple[VideoLMConfig, VideoLMConfig]:
    """Of target and draft."""
    return open_checkpoint(source("target")).config, open_checkpoint(source("draft")).config


def shared_mesh() -> hj.Placement:
    """Both models on one mesh of two devices."""
    both = jax.make_mesh((2,), ("tp",), devices=jax.devices()[:2])
    return hj.Placement(both, both)


def in_one_program(target: int, draft: int) -> hj.Placement:
    """Devices of their own in one program."""
    return hj.Placement.on(target, draft, one_program=True)


# Name -> how it is made, devices of the target, devices of the draft, devices in all.
PLACEMENTS = {
    "one device": (hj.Placement, 1, 1, 1),
    "one mesh of 2": (shared_mesh, 2, 2, 2),
    "two meshes 2+1": (lambda: hj.Placement.on(2, 1), 2, 1, 3),
    "one program 2+2": (lambda: in_one_program(2, 2), 2, 2, 4),
    "one program 3+1": (lambda: in_one_program(3, 1), 3, 1, 4),
    "one program 1+4": (lambda: in_one_program(1, 4), 1, 4, 5),
}
