"""``hippo bench``: speed, as ratios measured side by side in one run; and acceptance."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError

MODES = ("startup", "scoring", "acceptance")
CLIPS = 64  # of --acceptance


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo bench``."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed and acceptance, beside transformers if asked",
        description=(
            "Measure prefill and decoding of a model with random weights (about 130 M parameters, "
            "1568 visual tokens). With --pair: plain decoding beside HIPPO decoding of a pair. "
            "--scoring, --startup and --acceptance measure something else instead."
        ),
    )
    parser.add_argument(
        "--peer", choices=("transformers",), help="measure it too, on the same weights"
    )
    parser.add_argument("--pair", metavar="NAME", help="a pair of the zoo, on the embedded clips")
    parser.add_argument(
        "--new-tokens", type=int, metavar="N", help="default: 64; of --pair at most so many: 128"
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--gamma", type=int, metavar="N", help="of --pair and --acceptance: draft length, default 5"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--startup", action="store_true", help="time the embedded command instead")
    other.add_argument(
        "--scoring", action="store_true", help="what scoring and selection add to a prefill"
    )
    other.add_argument(
        "--acceptance",
        action="store_true",
        help="acceptance of a pair's draft (default: demo) by what it sees; takes half an hour",
    )
    parser.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help=f"of --acceptance: held-out clips, default {CLIPS}",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 when done."""
    mode = next((name for name in MODES if getattr(args, name)), None)
    _check(args, mode)
    if mode == "startup":
        outcome, table = _startup()
    elif mode == "scoring":
        from hippo_jax.benchmark import scoring_cost

        outcome = scoring_cost.measure_scoring(repeats=args.repeats, report=_report)
        table = scoring_cost.as_table(outcome)
    elif mode == "acceptance":
        outcome, table = _acceptance(args)
    elif args.pair is not None:
        from hippo_jax.benchmark import pair
        from hippo_jax.decoding.config import DEFAULT_GAMMA

        outcome = pair.compare_pair(
            pair=args.pair,
            new_tokens=128 if args.new_tokens is None else args.new_tokens,
            repeats=args.repeats,
            gamma=DEFAULT_GAMMA if args.gamma is None else args.gamma,
            report=_report,
        )
        table = pair.as_table(outcome)
    else:
        from hippo_jax.benchmark import decoding

        outcome = decoding.compare(
            peer=args.peer,
            new_tokens=64 if args.new_tokens is None else args.new_tokens,
            repeats=args.repeats,
            report=_report,
        )
        table = decoding.as_table(outcome)
    print(json.dumps(outcome) if args.json else table)
    return 0


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check(args: argparse.Namespace, mode: str | None) -> None:
    """Refuse options that would go unheard."""
    if args.peer and (args.pair is not None or mode):
        raise HippoError("--peer goes with the random model only: leave out the other options")
    if args.pair is not None and mode in ("startup", "scoring"):
        raise HippoError(f"--{mode} takes no --pair; leave it out")
    if args.new_tokens is not None and mode:
        raise HippoError(f"--{mode} takes no --new-tokens; leave it out")
    if args.clips is not None and mode != "acceptance":
        raise HippoError("--clips goes with --acceptance")
    if args.gamma is not None and mode != "acceptance" and (mode or args.pair is None):
        raise HippoError("--gamma goes with --pair or --acceptance")
    if args.repeats < 1:
        raise HippoError(f"--repeats {args.repeats}: at least one is needed")


def _startup() -> tuple[dict[str, Any], str]:
    from hippo_jax.benchmark.startup import measure_startup

    outcome = measure_startup()
    table = "\n".join(
        f"{name}: {found['wall_s']:.1f} s in all; "
        + ", ".join(f"{part} {value:.2f}" for part, value in found["seconds"].items())
        for name, found in outcome.items()
    )
    return outcome, table


def _acceptance(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """On the held-out clips that the model card's figures begin with."""
    from hippo_jax.resources import EMBEDDED_PAIR

    count = CLIPS if args.clips is None else args.clips
    if args.pair not in (None, EMBEDDED_PAIR):
        raise HippoError(
            f"--acceptance knows no clips for the pair {args.pair!r}; only {EMBEDDED_PAIR!r} has "
            "held-out clips, which a program draws"
        )
    if count < 1:
        raise HippoError(f"--clips {count}: at least one clip is needed")
    from hippo_jax.benchmark.acceptance import as_table, measure_acceptance
    from hippo_jax.cli.compilation_cache import enable_compilation_cache
    from hippo_jax.cli.train import CARD_SEED
    from hippo_jax.decoding.config import DEFAULT_GAMMA
    from hippo_jax.placement.pair import load_pair
    from hippo_jax.training.domain import HELD_OUT, sample_scene
    from hippo_jax.training.language import PROMPTS
    from hippo_jax.training.report import write_clips

    enable_compilation_cache()
    pair = load_pair(EMBEDDED_PAIR)
    with tempfile.TemporaryDirectory() as folder:
        clips = write_clips(
            Path(folder), [sample_scene(CARD_SEED, i, HELD_OUT) for i in range(count)]
        )
        outcome = measure_acceptance(
            pair,
            clips,
            [PROMPTS[i % len(PROMPTS)] for i in range(count)],
            gamma=DEFAULT_GAMMA if args.gamma is None else args.gamma,
            report=_report,
        )
    return {"pair": EMBEDDED_PAIR, "seed": CARD_SEED, **outcome}, as_table(outcome)
