"""Stages 2 and 3: the decoders learn to speak behind frozen vision towers.

Stage 2 trains both together: the target on the texts, the draft on the texts and on the target's
own distribution, while random keep masks teach the draft to live with pruned visual tokens.
Stage 3 goes on with the draft alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hippo_jax.training.networks import (
    Hidden,
    PackedText,
    Skeleton,
    encode_clips,
    part,
    run_decoder,
    visual_positions,
)
from hippo_jax.training.optimizer import OptimizerState, Weights, update
from hippo_jax.training.render import GROUPS, NONE
from hippo_jax.training.vision_pretraining import OBJECT_CLASSES, cross_entropy, object_losses

DENSE_WEIGHT = 0.3
DRAFT_WEIGHT = 0.5
IMITATION_WEIGHT = 0.5
EVENT_CLASSES = 4

Batch = dict[str, jax.Array]


def initial_dense_heads(width: int, seed: int) -> Weights:
    """Heads of the dense auxiliary task on the decoder's last visual states."""
    sizes = {**OBJECT_CLASSES, "event": EVENT_CLASSES}
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    return {
        f"{name}.head": jax.random.normal(key, (width, size + 1)) * width**-0.5
        for key, (name, size) in zip(keys, sizes.items(), strict=True)
    }


def chosen_labels(batch: Batch) -> Batch:
    """Dense labels of the chosen tokens. An event can be known in the second half only."""
    labels = {}
    for name in (*OBJECT_CLASSES, "event"):
        label = batch[name].astype(jnp.int32)
        if name == "event":
            second = jnp.arange(label.shape[1]) >= label.shape[1] * 2 // GROUPS
            label = jnp.where(second, label, NONE)
        labels[name] = jnp.take_along_axis(label, batch["chosen"], axis=1)
    return labels


def decode_clips(
    model: Skeleton, weights: Weights, features: jax.Array, keep: jax.Array, batch: Batch
) -> tuple[Hidden, jax.Array]:
    """Hidden states and text logits of one role over the chosen tokens."""
    decoder = model.with_decoder(weights)
    chosen = batch["chosen"]
    used = jnp.take_along_axis(features, chosen[..., None], axis=1)
    positions = jnp.asarray(visual_positions())[:, chosen]
    text = PackedText(batch["ids"], batch["offsets"], batch["segments"])
    hidden = run_decoder(decoder, used, positions, keep, text)
    return hidden, decoder.logits(hidden.text)


def text_loss(logits: jax.Array, batch: Batch) -> jax.Array:
    """Mean cross-entropy of the answers."""
    learnt = batch["targets"] >= 0
    losses = cross_entropy(logits, jnp.maximum(batch["targets"], 0))
    return jnp.sum(losses * learnt) / jnp.sum(learnt)


def imitation_loss(draft: jax.Array, target: jax.Array, batch: Batch) -> jax.Array:
    """Mean KL divergence from the (fixed) target's distribution to the draft's."""
    learnt = batch["targets"] >= 0
    target_log = jax.nn.log_softmax(jax.lax.stop_gradient(target))
    difference = target_log - jax.nn.log_softmax(draft)
    return jnp.sum(jnp.sum(jnp.exp(target_log) * difference, -1) * learnt) / jnp.sum(learnt)


def content_accuracy(logits: jax.Array, batch: Batch) -> jax.Array:
    content = batch["content"] > 0
    right = jnp.argmax(logits, -1) == batch["targets"]
    return jnp.sum(right & content) / jnp.sum(content)


def joint_step(models: dict[str, Skeleton], frozen: Weights):
    """The jitted step of stage 2 over `{role}.decoder...` and `{role}.aux...` weights."""

    def loss_of(weights: Weights, features: dict[str, jax.Array], batch: Batch):
        labels = chosen_labels(batch)
        everything = jnp.ones(batch["chosen"].shape, bool)
        total = jnp.zeros(())
        logits = {}
        for role, model in models.items():
            keep = everything if role == "target" else batch["keep"]
            own = part(weights, role)
            hidden, logits[role] = decode_clips(model, own, features[role], keep, batch)
            seen = {name: jnp.where(keep, label, NONE) for name, label in labels.items()}
            dense, _ = object_losses(part(own, "aux"), hidden.visual, seen)
            weight = 1.0 if role == "target" else DRAFT_WEIGHT
            total += weight * text_loss(logits[role], batch) + weight * DENSE_WEIGHT * dense
        imitation = imitation_loss(logits["draft"], logits["target"], batch)
        total += IMITATION_WEIGHT * imitation
        figures = {
            "loss": total,
            "t.ce": text_loss(logits["target"], batch),
            "d.ce": text_loss(logits["draft"], batch),
            "kl": imitation,
            "t.content": content_accuracy(logits["target"], batch),
            "d.content": content_accuracy(logits["draft"], batch),
        }
        return total, figures

    @jax.jit
    def step(
        weights: Weights, state: OptimizerState, batch: Batch, rate: jax.Array, fixed: Weights
    ):
        features = {
            role: encode_clips(model.with_vision(part(fixed, role)), batch["patches"])
            for role, model in models.items()
        }
        gradients, figures = jax.grad(loss_of, has_aux=True)(weights, features, batch)
        weights, state = update(weights, gradients, state, rate)
        return weights, state, figures

    return lambda weights, state, batch, rate: step(weights, state, batch, rate, frozen)


def draft_step(model: Skeleton, frozen: Weights):
    """The jitted step of stage 3 over the draft's decoder and merger."""

    def loss_of(weights: Weights, patches: jax.Array, fixed: Weights, batch: Batch):
        features = encode_clips(model.with_vision({**fixed, **weights}), patches)
        hidden, logits = decode_clips(model, weights, features, batch["keep"], batch)
        labels = chosen_labels(batch)
        seen = {name: jnp.where(batch["keep"], label, NONE) for name, label in labels.items()}
        dense, _ = object_losses(part(weights, "aux"), hidden.visual, seen)
        loss = text_loss(logits, batch)
        figures = {"d.ce": loss, "d.content": content_accuracy(logits, batch)}
        return loss + 0.2 * dense, figures

    @jax.jit
    def step(
        weights: Weights, state: OptimizerState, batch: Batch, rate: jax.Array, fixed: Weights
    ):
        gradients, figures = jax.grad(loss_of, has_aux=True)(
            weights, batch["patches"], fixed, batch
        )
        weights, state = update(weights, gradients, state, rate)
        return weights, state, figures

    return lambda weights, state, batch, rate: step(weights, state, batch, rate, frozen)
