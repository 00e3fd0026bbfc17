"""``--pair``, or ``--target`` and ``--draft``, and ``--dtype``: the models of a command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError


def add_models(parser: Any, draft: str = "of the model that proposes") -> None:
    """Declare the options.

    Args:
        draft: the help of ``--draft``.
    """
    parser.add_argument("--pair", metavar="NAME", help="a pair of the zoo (default: demo)")
    parser.add_argument(
        "--target", metavar="SOURCE", help="directory or hub id of the model that answers"
    )
    parser.add_argument("--draft", metavar="SOURCE", help=draft)
    add_dtype(parser, "the device's")


def add_dtype(parser: Any, default: str) -> None:
    """Declare ``--dtype`` alone."""
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help=f"default: {default}"
    )


def check_models(args: argparse.Namespace, what: str | None = None) -> None:
    """Refuse models that do not go together.

    Args:
        what: needs a pair; ``None``: a target will do.
    """
    if args.pair is not None and (args.target is not None or args.draft is not None):
        raise HippoError("give --pair, or --target and --draft, not both")
    if what is not None and (args.target is None) != (args.draft is None):
        raise HippoError(f"{what} needs a pair: give both --target and --draft")
    if args.draft is not None and args.target is None:
        raise HippoError("--draft needs --target: the model that answers")


def pair_name(args: argparse.Namespace) -> str:
    """The pair of the zoo that is meant where no target is given."""
    from hippo_jax.resources import EMBEDDED_PAIR

    return EMBEDDED_PAIR if args.pair is None else str(args.pair)


def pair_sources(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """A pair's name for people, and what ``load_pair`` is told."""
    if args.target is None:
        return pair_name(args), {"name": pair_name(args), "dtype": args.dtype}
    name = f"{Path(args.target).name} with {Path(args.draft).name}"
    return name, {"target": args.target, "draft": args.draft, "dtype": args.dtype}
