"""Stage 1: both vision towers learn what each visual token shows, before any language.

Linear heads on the merged tokens name the object's colour, shape and motion, the token's cell,
and the background. This is what makes the language stage short: captions alone ground slowly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.training import domain
from hippo_jax.training.networks import Skeleton, encode_clips
from hippo_jax.training.optimizer import OptimizerState, Weights, update
from hippo_jax.training.render import GROUPS, NONE, SIDE

OBJECT_CLASSES = {
    "colour": len(domain.COLOURS) + len(domain.TURN_COLOURS),
    "shape": len(domain.SHAPES),
    "motion": len(domain.MOTIONS),
}
SCENE_CLASSES = {"pattern": len(domain.PATTERNS), "tone": len(domain.TONES)}
EMPTY_WEIGHT = 0.1  # of tokens without an object


def cells() -> np.ndarray:
    """The 3 x 3 cell of each visual token, int32 `[324]`."""
    rows, columns = np.meshgrid(np.arange(SIDE) // 3, np.arange(SIDE) // 3, indexing="ij")
    return np.tile((rows * 3 + columns).reshape(-1), GROUPS).astype(np.int32)


def initial_heads(width: int, seed: int) -> Weights:
    """Linear heads; index 0 of an object's head is "no object"."""
    sizes = {name: count + 1 for name, count in OBJECT_CLASSES.items()}
    sizes |= {"cell": 9, **SCENE_CLASSES}
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    return {
        f"{name}.head": jax.random.normal(key, (width, size)) * width**-0.5
        for key, (name, size) in zip(keys, sizes.items(), strict=True)
    }


def object_losses(
    heads: Weights, tokens: jax.Array, labels: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted cross-entropy of the objects' attributes, and accuracy on object tokens.

    `tokens [B, N, D]`, `labels[name] [B, N]` with NONE for empty tokens.
    """
    loss = jnp.zeros(())
    right = {}
    normed = rms(tokens)
    for name in OBJECT_CLASSES:
        if f"{name}.head" not in heads:
            continue
        label = labels[name].astype(jnp.int32)
        logits = normed @ heads[f"{name}.head"]
        weight = jnp.where(label == NONE, EMPTY_WEIGHT, 1.0)
        loss += jnp.sum(cross_entropy(logits, label + 1) * weight) / jnp.sum(weight)
        hit = (jnp.argmax(logits, -1) == label + 1) & (label != NONE)
        right[name] = jnp.sum(hit) / jnp.maximum(1, jnp.sum(label != NONE))
    return loss, right


def rms(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def pretraining_step(models: dict[str, Skeleton]):
    """The jitted step over `{role}.vision...` and `{role}.heads...` weights."""
    cell = jnp.asarray(cells())

    def loss_of(weights: Weights, batch: dict[str, jax.Array]):
        total = jnp.zeros(())
        figures: dict[str, jax.Array] = {}
        for role, model in models.items():
            own = {n.removeprefix(f"{role}."): v for n, v in weights.items() if n.startswith(role)}
            heads = {n.removeprefix("heads."): v for n, v in own.items() if n.startswith("heads.")}
            tokens = encode_clips(model.with_vision(own), batch["patches"])
            loss, right = object_losses(heads, tokens, batch)
            normed = rms(tokens)
            for name in ("cell", *SCENE_CLASSES):
                logits = normed @ heads[f"{name}.head"]
                label = cell[None] if name == "cell" else batch[name][:, None]
                label = jnp.broadcast_to(label, logits.shape[:2])
                loss += 0.3 * jnp.mean(cross_entropy(logits, label))
                right[name] = jnp.mean(jnp.argmax(logits, -1) == label)
            total += loss
            figures |= {f"{role[0]}.{name}": value for name, value in right.items()}
        return total, {"loss": total, **figures}

    @jax.jit
    def step(weights: Weights, state: OptimizerState, batch: dict[str, jax.Array], rate: jax.Array):
        gradients, figures = jax.grad(loss_of, has_aux=True)(weights, batch)
        weights, state = update(weights, gradients, state, rate)
        return weights, state, figures

    return step
