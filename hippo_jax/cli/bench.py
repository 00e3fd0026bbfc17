"""``hippo bench``: speed, as ratios measured side by side in one run; and acceptance."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError

MODES = ("startup", "scoring", "acceptance", "overlap", "model", "int8")
CLIPS = 64  # of --acceptance and --int8
REPEATS, TURNS = 5, 7  # of --overlap the latter


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo bench``."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed and acceptance, beside transformers if asked",
        description=(
            "Measure prefill and decoding of a model with random weights (about 130 M parameters, "
            "1568 visual tokens). With --pair: plain decoding beside HIPPO decoding of a pair. "
            "--scoring, --startup, --acceptance, --overlap, --model and --int8 measure something"
            " else."
        ),
    )
    parser.add_argument(
        "--peer", choices=("transformers",), help="measure it too, on the same weights"
    )
    parser.add_argument("--pair", metavar="NAME", help="a pair of the zoo, on the embedded clips")
    parser.add_argument(
        "--new-tokens", type=int, metavar="N", help="default: 64; of --pair at most so many: 128"
    )
    parser.add_argument(
        "--repeats", type=int, metavar="N", help=f"default: {REPEATS}; of --overlap {TURNS}"
    )
    parser.add_argument(
        "--gamma",
        type=int,
        metavar="N",
        help="of --pair, --acceptance, --model and --int8: draft length, default 5",
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
    other.add_argument(
        "--overlap",
        action="store_true",
        help="a parallel round beside its slower role alone, with injected work on two CPU devices",
    )
    other.add_argument(
        "--model",
        action="store_true",
        help="time of each schedule of a pair (default: demo), predicted from its parts, and taken",
    )
    other.add_argument(
        "--int8",
        action="store_true",
        help="what int8 weights do to logits and acceptance of a pair (default: demo)",
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="DIR",
        help="of --overlap: write the profiler's traces and a picture of them, overlap.png",
    )
    parser.add_argument(
        "--devices",
        type=int,
        nargs=2,
        metavar=("N", "M"),
        help="of --model: also with N devices for the target and M for the draft",
    )
    parser.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help=f"of --acceptance and --int8: held-out clips, default {CLIPS}",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 when done."""
    mode = next((name for name in MODES if getattr(args, name)), None)
    _check(args, mode)
    if args.repeats is None:
        args.repeats = TURNS if mode == "overlap" else REPEATS
    if mode == "startup":
        outcome, table = _startup()
    elif mode == "scoring":
        from hippo_jax.benchmark import scoring_cost

        outcome = scoring_cost.measure_scoring(repeats=args.repeats, report=_report)
        table = scoring_cost.as_table(outcome)
    elif mode == "acceptance":
        outcome, table = _acceptance(args)
    elif mode == "int8":
        outcome, table = _int8(args)
    elif mode == "overlap":
        outcome, table = _overlap(args)
    elif mode == "model":
        outcome, table = _model(args)
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
    if args.pair is not None and mode in ("startup", "scoring", "overlap"):
        raise HippoError(f"--{mode} takes no --pair; leave it out")
    if args.new_tokens is not None and mode:
        raise HippoError(f"--{mode} takes no --new-tokens; leave it out")
    if args.clips is not None and mode not in ("acceptance", "int8"):
        raise HippoError("--clips goes with --acceptance or --int8")
    drafts = ("acceptance", "model", "int8")
    if args.gamma is not None and mode not in drafts and (mode or args.pair is None):
        raise HippoError("--gamma goes with --pair, --acceptance, --model or --int8")
    if args.trace is not None and mode != "overlap":
        raise HippoError("--trace goes with --overlap")
    if args.devices is not None and mode != "model":
        raise HippoError("--devices goes with --model")
    if args.repeats is not None and args.repeats < 1:
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
    _check_clips(args, "--acceptance")
    from hippo_jax.benchmark.acceptance import as_table, measure_acceptance
    from hippo_jax.placement.pair import load_pair
    from hippo_jax.resources import EMBEDDED_PAIR

    outcome = _on_held_out_clips(args, measure_acceptance, lambda: [load_pair(EMBEDDED_PAIR)])
    return outcome, as_table(outcome)


def _int8(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    _check_clips(args, "--int8")
    from hippo_jax.benchmark.int8 import as_table, measure_int8
    from hippo_jax.cli.int8 import int8_roles
    from hippo_jax.placement.pair import load_pair
    from hippo_jax.resources import EMBEDDED_PAIR

    outcome = _on_held_out_clips(
        args,
        measure_int8,
        lambda: [load_pair(EMBEDDED_PAIR, **int8_roles(which)) for which in (None, "both")],
    )
    return outcome, as_table(outcome)


def _check_clips(args: argparse.Namespace, mode: str) -> None:
    from hippo_jax.resources import EMBEDDED_PAIR

    if args.pair not in (None, EMBEDDED_PAIR):
        raise HippoError(
            f"{mode} knows no clips for the pair {args.pair!r}; only {EMBEDDED_PAIR!r} has "
            "held-out clips, which a program draws"
        )
    if args.clips is not None and args.clips < 1:
        raise HippoError(f"--clips {args.clips}: at least one clip is needed")


def _on_held_out_clips(
    args: argparse.Namespace, measure: Callable[..., dict[str, Any]], load: Callable[[], list[Any]]
) -> dict[str, Any]:
    """``measure`` what ``load`` gives on the clips that the model card's figures begin with."""
    from hippo_jax.cli.compilation_cache import enable_compilation_cache
    from hippo_jax.decoding.config import DEFAULT_GAMMA
    from hippo_jax.resources import EMBEDDED_PAIR
    from hippo_jax.training.domain import CARD_SEED
    from hippo_jax.training.report import card_clips

    enable_compilation_cache()
    pairs, count = load(), CLIPS if args.clips is None else args.clips
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(
            *pairs,
            *card_clips(Path(folder), count),
            gamma=DEFAULT_GAMMA if args.gamma is None else args.gamma,
            report=_report,
        )
    return {"pair": EMBEDDED_PAIR, "seed": CARD_SEED, **outcome}


def _overlap(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from hippo_jax.benchmark.overlap import as_table, measure_overlap

    if args.trace is not None:  # nobody shall measure for minutes and lose it
        try:
            args.trace.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise HippoError(f"--trace {args.trace} cannot be a folder: {said}") from error
    outcome = measure_overlap(repeats=args.repeats, trace=args.trace, report=_report)
    if args.trace is not None:
        from hippo_jax.benchmark.timeline import overlap_picture

        picture = args.trace / "overlap.png"
        try:
            overlap_picture(outcome).save(picture)
            _report(f"wrote {picture}")
        except HippoError as error:  # the table stands without it
            _report(f"no picture: {error}")
    return outcome, as_table(outcome)


def _model(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from hippo_jax.benchmark.cpu_devices import ask_for_cpu_devices
    from hippo_jax.benchmark.schedules import as_table, compare_schedules
    from hippo_jax.decoding.config import DEFAULT_GAMMA
    from hippo_jax.resources import EMBEDDED_PAIR

    devices = None if args.devices is None else tuple(args.devices)
    ask_for_cpu_devices(sum(devices or (1,)))
    outcome = compare_schedules(
        pair=EMBEDDED_PAIR if args.pair is None else args.pair,
        new_tokens=128,
        repeats=args.repeats,
        gamma=DEFAULT_GAMMA if args.gamma is None else args.gamma,
        devices=devices,
        report=_report,
    )
    return outcome, as_table(outcome)
