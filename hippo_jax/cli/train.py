"""``hippo train``: the embedded pair from nothing, resumable; and its figures."""

import argparse
import json
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError
from hippo_jax.training.domain import CARD_SEED

CARD_CLIPS = 240  # behind the figures of the model card


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo train``."""
    parser = subparsers.add_parser(
        "train",
        help="train the embedded pair from nothing, resumable",
        description=(
            "Train the embedded pair from nothing: vision towers, target and draft together, then "
            "the draft alone. After an interruption the same command goes on where it was. The "
            "pair comes out in DIR/target and DIR/draft."
        ),
    )
    parser.add_argument(
        "--output", metavar="DIR", help="where checkpoints and the pair are written"
    )
    parser.add_argument("--seed", type=int, default=0, help="of data and weights (default 0)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of a recipe field (hippo_jax/training/recipe.py), e.g. joint_steps=400",
    )
    parser.add_argument(
        "--evaluate",
        metavar="PAIR",
        help="train nothing: print the figures of the pair in this directory (demo: ours)",
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=CARD_CLIPS,
        help=f"held-out clips of the evaluation (default {CARD_CLIPS})",
    )


def run(args: argparse.Namespace) -> int:
    """Train or evaluate; 0 when done."""
    if args.evaluate is not None:
        return _evaluate(args)
    if not args.output:
        raise HippoError("say where to write: hippo train --output DIR")
    from hippo_jax.training.export import export_pair
    from hippo_jax.training.recipe import recipe_with, train
    from hippo_jax.training.samples import write_samples

    output = Path(args.output).expanduser()
    recipe = recipe_with({"seed": args.seed}, args.set)
    weights = train(output, recipe)
    export_pair(weights, output)
    write_samples(output / "clips")
    print(f"{output} is complete: target, draft and sample clips")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from hippo_jax.training.report import measure

    if args.clips < 1:
        raise HippoError(f"--clips {args.clips}: at least one clip is needed")
    if args.evaluate == "demo":
        from hippo_jax.resources import checkpoint_directory

        directory = checkpoint_directory("demo", "target").parent
    else:
        directory = Path(args.evaluate).expanduser()
    print(json.dumps(measure(directory, args.clips, CARD_SEED), indent=2))
    return 0
