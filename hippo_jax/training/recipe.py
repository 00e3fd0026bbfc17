"""The whole recipe: stages, their lengths, and what passes from one to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError
from hippo_jax.training import batches, sizes
from hippo_jax.training.checkpointing import Progress, load_weights, save_weights
from hippo_jax.training.evaluation import (
    Judge,
    agreement,
    greedy_texts,
    held_out_clips,
    score_greedy,
)
from hippo_jax.training.language_training import draft_step, initial_dense_heads, joint_step
from hippo_jax.training.loop import Stage, run_stage, say
from hippo_jax.training.networks import Skeleton, initial_weights, part, skeleton
from hippo_jax.training.optimizer import Weights
from hippo_jax.training.tokenizer import special_ids
from hippo_jax.training.vision_pretraining import initial_heads, pretraining_step

WATCH_SEED = 77  # of the held-out clips that are looked at during training; not those of the card


@dataclass(frozen=True)
class Recipe:
    """Lengths of the stages in steps, and clips a step."""

    seed: int = 0
    vision_steps: int = 450
    vision_batch: int = 8
    joint_steps: int = 1200
    joint_batch: int = 8
    draft_steps: int = 350
    draft_batch: int = 16
    subset_share: float = 0.6  # of stage 2 works with a part of the visual tokens
    watch_every: int = 200


def skeletons() -> dict[str, Skeleton]:
    special = special_ids(batches.tokenizer())
    return {role: skeleton(sizes.model_config(role, special)) for role in sizes.ROLES}


def train_vision(directory: Path, recipe: Recipe, models: dict[str, Skeleton]) -> Weights:
    """Stage 1."""

    def start() -> Weights:
        weights: Weights = {}
        for number, (role, model) in enumerate(models.items()):
            own = initial_weights(model.config, recipe.seed + 10 * number)
            weights |= {f"{role}.{n}": v for n, v in own.items() if n.startswith("vision.")}
            heads = initial_heads(model.config.text.hidden_size, recipe.seed + number)
            weights |= {f"{role}.heads.{n}": v for n, v in heads.items()}
        return weights

    stage = Stage(
        name="1_vision",
        total=recipe.vision_steps,
        make=batches.crowded_batch,
        options={"seed": recipe.seed, "size": recipe.vision_batch},
        update=pretraining_step(models),
        decay=0.5,
    )
    return run_stage(directory, stage, start)


def train_jointly(
    directory: Path, recipe: Recipe, models: dict[str, Skeleton], vision: Weights
) -> Weights:
    """Stage 2. Returns the weights with the best greedy captions after the switch to all tokens."""
    frozen = {name: value for name, value in vision.items() if ".vision." in name}

    def start() -> Weights:
        weights: Weights = {}
        for number, (role, model) in enumerate(models.items()):
            own = initial_weights(model.config, recipe.seed + 10 * number)
            weights |= {f"{role}.{n}": v for n, v in own.items() if n.startswith("decoder.")}
            heads = initial_dense_heads(model.config.text.hidden_size, recipe.seed + 5 + number)
            weights |= {f"{role}.aux.{n}": v for n, v in heads.items()}
        return weights

    switch = round(recipe.subset_share * recipe.joint_steps)
    clips = held_out_clips(48, WATCH_SEED)
    judge = Judge(models)
    best = directory / "2_best.npz"
    record = directory / "2_best.txt"

    def watch(progress: Progress) -> None:
        both = role_weights({**frozen, **progress.weights})
        texts = greedy_texts(judge, both["target"], clips)
        score = score_greedy(clips, texts)
        agreed = agreement(judge, both["draft"], clips, texts)
        say(
            f"greedy {score.accuracy:.3f} of attributes, {score.exact:.2f} of captions; draft "
            f"{agreed.everything:.3f}, content {agreed.content:.3f}, no video "
            f"{agreed.no_video:.3f}, tenth {agreed.tenth:.3f}; "
            + " ".join(f"{n} {v:.2f}" for n, v in score.by_attribute().items())
        )
        so_far = float(record.read_text()) if record.exists() else -1.0
        if progress.step > switch and score.accuracy >= so_far:
            save_weights(best, progress.weights)
            record.write_text(f"{score.accuracy}\n")

    stage = Stage(
        name="2_joint",
        total=recipe.joint_steps,
        make=batches.joint_batch,
        options={
            "seed": recipe.seed + 1,
            "size": recipe.joint_batch,
            "visibility": batches.Visibility(switch=switch),
        },
        update=joint_step(models, frozen),
        watch=watch,
        watch_every=recipe.watch_every,
        decay=0.6,
    )
    last = run_stage(directory, stage, start)
    return load_weights(best) if best.exists() else last


def train_draft(
    directory: Path, recipe: Recipe, models: dict[str, Skeleton], weights: Weights
) -> Weights:
    """Stage 3: the draft's decoder and merger; everything else stays."""
    own = part(weights, "draft")
    moving = {
        name: value
        for name, value in own.items()
        if name.startswith(("decoder.", "aux.", "vision.merger."))
    }
    stage = Stage(
        name="3_draft",
        total=recipe.draft_steps,
        make=batches.joint_batch,
        options={"seed": recipe.seed + 2, "size": recipe.draft_batch},
        update=draft_step(models["draft"], own),
        decay=1.0,
        scale=0.3,
    )
    trained = run_stage(directory, stage, lambda: moving)
    return {**weights, **{f"draft.{name}": value for name, value in trained.items()}}


def role_weights(weights: Weights) -> dict[str, Weights]:
    """`{role}.{path}` weights by role, without what only training needs."""
    return {
        role: {
            name: value
            for name, value in part(weights, role).items()
            if name.startswith(("decoder.", "vision."))
        }
        for role in sizes.ROLES
    }


def train(directory: Path, recipe: Recipe) -> dict[str, Weights]:
    """All stages, or what is left of them. Returns the weights by role."""
    directory.mkdir(parents=True, exist_ok=True)
    models = skeletons()
    vision = train_vision(directory, recipe, models)
    joint = train_jointly(directory, recipe, models, vision)
    frozen = {name: value for name, value in vision.items() if ".vision." in name}
    final = train_draft(directory, recipe, models, {**frozen, **joint})
    save_weights(
        directory / "final.npz",
        {
            f"{role}.{name}": value
            for role, own in role_weights(final).items()
            for name, value in own.items()
        },
    )
    return role_weights(final)


def recipe_with(fields: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe with other values; `overrides` are `name=value` texts."""
    known = dataclasses.asdict(Recipe())
    values = dict(fields)
    for text in overrides:
        name, _, value = text.partition("=")
        if name not in known:
            raise HippoError(f"the recipe has no field {name!r}; fields: {', '.join(known)}")
        try:
            values[name] = type(known[name])(value)
        except ValueError:
            raise HippoError(f"recipe field {name}: {value!r} is not a number") from None
    for name, value in values.items():
        lowest, highest = (0, 1) if name == "subset_share" else (name != "seed", 10**9)
        if not lowest <= value <= highest:
            raise HippoError(f"recipe field {name}: {value} must lie from {lowest:d} to {highest}")
    return Recipe(**values)
