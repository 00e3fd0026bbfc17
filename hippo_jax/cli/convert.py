"""``hippo convert SOURCE DESTINATION``: a checkpoint to an Orbax directory, resumable."""

import argparse
import sys
import time
from typing import Any

from hippo_jax.errors import HippoError


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo convert``."""
    parser = subparsers.add_parser(
        "convert",
        help="convert a checkpoint to an Orbax directory, resumable",
        description=(
            "Convert a Hugging Face checkpoint to an Orbax directory that loads without being"
            " rearranged. After an interruption the same command goes on where it was."
        ),
    )
    parser.add_argument("source", metavar="SOURCE", help="directory or hub id (organisation/name)")
    parser.add_argument("destination", metavar="DESTINATION", help="a new or empty directory")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights written (default: the source's own)",
    )
    parser.add_argument("--revision", help="branch, tag or commit on the hub")


def run(args: argparse.Namespace) -> int:
    """Convert, with progress on stderr; 0 when the destination is complete."""
    from hippo_jax.weights.convert import convert

    if not args.destination:
        raise HippoError("DESTINATION is empty; name a new or empty directory")
    place = convert(
        args.source,
        args.destination,
        dtype=args.dtype,
        revision=args.revision,
        progress=_Progress(),
    )
    print(f"{place} is complete")
    return 0


class _Progress:
    """One line on a terminal, rewritten; in a log a line for every tenth."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.began = time.monotonic()
        self.first: int | None = None  # bytes that an earlier run had done
        self.tenth = -1

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic() - self.began
        self.first = done if self.first is None else self.first
        share = done / max(1, total)
        rate = (done - self.first) / now if now > 0 else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        size = f"{total / 1e9:.2f} GB" if total >= 1e9 else f"{total / 1e6:.1f} MB"
        line = f"converting: {100 * share:3.0f} % of {size}{left}"
        if self.terminal:
            end = "\n" if done >= total else ""
            print(f"\r{line:<60}", end=end, file=sys.stderr, flush=True)
        elif int(10 * share) > self.tenth:
            self.tenth = int(10 * share)
            print(line, file=sys.stderr, flush=True)
