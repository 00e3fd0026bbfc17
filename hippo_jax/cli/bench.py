"""``hippo bench``: speed, as ratios measured side by side in one run."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from hippo_jax.errors import HippoError


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo bench``."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed, beside transformers if asked",
        description=(
            "Measure prefill and decoding of a model with random weights (about 130 M parameters, "
            "1568 visual tokens). With --pair: a pair's target beside its draft. With --startup: "
            "the embedded command from a cold start."
        ),
    )
    parser.add_argument(
        "--peer", choices=("transformers",), help="measure it too, on the same weights"
    )
    parser.add_argument("--pair", metavar="NAME", help="target and draft of a pair instead")
    parser.add_argument("--new-tokens", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--startup", action="store_true", help="time the embedded command instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 when done."""

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if args.peer and (args.pair or args.startup):
        raise HippoError("--peer goes with the random model only; leave out --pair and --startup")
    if args.startup:
        from hippo_jax.benchmark.startup import measure_startup

        outcome = measure_startup()
        table = "\n".join(
            f"{name}: {found['wall_s']:.1f} s in all; "
            + ", ".join(f"{part} {value:.2f}" for part, value in found["seconds"].items())
            for name, found in outcome.items()
        )
    else:
        from hippo_jax.benchmark.decoding import as_table, compare, compare_roles

        sizes = {"new_tokens": args.new_tokens, "repeats": args.repeats, "report": report}
        if args.pair:
            outcome = compare_roles(pair=args.pair, **sizes)
        else:
            outcome = compare(peer=args.peer, **sizes)
        table = as_table(outcome)
    print(json.dumps(outcome) if args.json else table)
    return 0
