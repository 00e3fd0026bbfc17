"""``hippo bench``: speed, as ratios measured side by side in one run; and acceptance."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError

KEPT = Path("the pair's own")  # of --compare without a file

MODES = ("startup", "acceptance", "record", "overlap", "model", "modelled", "precision")
CLIPS = 64  # of --acceptance, --record and --precision
REPEATS, TURNS = 5, 7  # of --overlap the latter
NEW_TOKENS = 128
FRAMES, FRAME_SIZE = 8, (392, 784)  # of --shape: 1568 visual tokens of Qwen2.5-VL
SHAPED = ("shape", "draft_shape", "frames", "frame_size")
OF_SPEED = (*SHAPED, "dtype", "attention", "peer", "draft_on", "new_tokens", "out", "compare")
ON_CLIPS = ("acceptance", "record", "precision")
WITH_GAMMA = ("acceptance", "model", "modelled", "precision")


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo bench``."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed and acceptance, beside transformers if asked",
        description=(
            "Decode with the target alone and with the pair, and run every part alone, beside what "
            "the device can do at best; all in turns. On the embedded pair, or with --shape on "
            "random weights. --startup, --acceptance, --record, --overlap, --model and --precision "
            "measure something else."
        ),
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--pair", metavar="NAME", help="a pair of the zoo on its clips: demo")
    which.add_argument(
        "--shape",
        metavar="NAME",
        help="random weights in this shape: 130m or a published size such as qwen2.5-vl-7b; the "
        "embedded pair's acceptance is replayed",
    )
    parser.add_argument(
        "--draft-shape", metavar="NAME", help="the draft's; default: the family's smallest"
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help=f"of --shape: of its video, default {FRAMES}"
    )
    parser.add_argument(
        "--frame-size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help=f"of --shape: pixels, default {FRAME_SIZE[0]} {FRAME_SIZE[1]}",
    )
    parser.add_argument("--dtype", metavar="DTYPE", help="of the weights; default: the device's")
    parser.add_argument(
        "--attention",
        choices=("blocks", "cudnn"),
        help="the kernel that reads prompts: our blocks (default), or cuDNN's fused attention on a "
        "GPU in 16 bits",
    )
    parser.add_argument(
        "--peer", choices=("transformers",), help="measure its ways too, on the same weights"
    )
    parser.add_argument(
        "--draft-on",
        choices=("cpu", "gpu", "tpu"),
        help="also with a copy of the draft on another device of this kind, beside the target's: "
        "do both work at the same time?",
    )
    parser.add_argument(
        "--new-tokens", type=int, metavar="N", help=f"of an answer at most, default {NEW_TOKENS}"
    )
    parser.add_argument(
        "--repeats", type=int, metavar="N", help=f"default: {REPEATS}; of --overlap {TURNS}"
    )
    parser.add_argument("--gamma", type=int, metavar="N", help="draft length, default 5")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="also keep the run as JSON in this file"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="?",
        const=KEPT,
        metavar="FILE",
        help="hold the run against a kept one, by default that beside the pair's card; exit status "
        "1 if something got slower",
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--startup", action="store_true", help="time the embedded command instead")
    other.add_argument(
        "--acceptance",
        action="store_true",
        help="acceptance of a pair's draft (default: demo) by what it sees; takes half an hour",
    )
    other.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="record where a pair's draft is right, for --shape to replay",
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
        "--modelled",
        type=Path,
        metavar="FILE",
        help="speedups at the paper's acceptance, modelled from the step times of a run kept with "
        "--out",
    )
    other.add_argument(
        "--precision",
        choices=("int8", "bfloat16", "float16"),
        help="what such weights, or with --attention such a kernel too, do to logits, answers and "
        "acceptance of a pair (default: demo)",
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
        help=f"of --acceptance, --record and --precision: held-out clips, default {CLIPS}",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 when done, 1 if ``--compare`` found something slower."""
    mode = next((name for name in MODES if getattr(args, name)), None)
    _check(args, mode)
    if args.repeats is None:
        args.repeats = TURNS if mode == "overlap" else REPEATS
    if mode is None:
        return _speed(args)
    outcome, table = {
        "startup": lambda args: _startup(),
        "acceptance": _acceptance,
        "record": _record,
        "precision": _precision,
        "overlap": _overlap,
        "model": _model,
        "modelled": _modelled,
    }[mode](args)
    print(json.dumps(outcome) if args.json else table)
    return 0


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check(args: argparse.Namespace, mode: str | None) -> None:
    """Refuse options that would go unheard."""
    for name in OF_SPEED:
        if (mode, name) == ("precision", "attention"):
            continue
        if getattr(args, name) is not None and mode:
            raise HippoError(f"--{mode} takes no --{name.replace('_', '-')}; leave it out")
    for name in ("draft_shape", "frames", "frame_size"):
        if getattr(args, name) is not None and args.shape is None and not mode:
            raise HippoError(f"--{name.replace('_', '-')} goes with --shape")
    if args.pair is not None and mode in ("startup", "overlap", "modelled"):
        raise HippoError(f"--{mode} takes no --pair; leave it out")
    if args.clips is not None and mode not in ON_CLIPS:
        raise HippoError("--clips goes with --acceptance, --record or --precision")
    if args.gamma is not None and mode and mode not in WITH_GAMMA:
        raise HippoError(f"--{mode} takes no --gamma; leave it out")
    if args.trace is not None and mode != "overlap":
        raise HippoError("--trace goes with --overlap")
    if args.devices is not None and mode != "model":
        raise HippoError("--devices goes with --model")
    if args.repeats is not None and args.repeats < 1:
        raise HippoError(f"--repeats {args.repeats}: at least one is needed")
    if args.out is not None and not args.out.absolute().parent.is_dir():
        raise HippoError(f"--out {args.out}: its folder is not there")  # before minutes of work


def _speed(args: argparse.Namespace) -> int:
    from hippo_jax.benchmark import kept_run
    from hippo_jax.benchmark.cases import pair_case, shape_case
    from hippo_jax.benchmark.cpu_devices import ask_for_cpu_devices
    from hippo_jax.benchmark.speed import measure_speed
    from hippo_jax.benchmark.speed_table import as_table
    from hippo_jax.benchmark.two_devices import draft_device
    from hippo_jax.cli.compilation_cache import enable_compilation_cache
    from hippo_jax.decoding.config import DEFAULT_GAMMA
    from hippo_jax.resources import EMBEDDED_PAIR

    if args.peer is not None:
        # On a GPU jax would else take three quarters of the memory for itself, at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    enable_compilation_cache()
    pair = EMBEDDED_PAIR if args.pair is None else args.pair
    draft_on = None
    if args.draft_on is not None:
        ask_for_cpu_devices(2)  # where jax works on the CPU, one for each
        draft_on = draft_device(args.draft_on)
    kept = None
    if args.compare is not None:
        if args.shape is not None and args.compare == KEPT:
            raise HippoError("--compare needs a FILE with --shape: only a pair has a kept run")
        kept = kept_run.read_run(kept_run.kept_file(pair) if args.compare == KEPT else args.compare)
    new_tokens = NEW_TOKENS if args.new_tokens is None else args.new_tokens
    if args.shape is None:
        case = pair_case(pair, new_tokens, args.dtype)
    else:
        case = shape_case(
            args.shape,
            args.draft_shape,
            new_tokens,
            recording=EMBEDDED_PAIR,
            frames=FRAMES if args.frames is None else args.frames,
            size=FRAME_SIZE if args.frame_size is None else tuple(args.frame_size),
            dtype=args.dtype,
        )
    _read_by(case.pair, args.attention)
    outcome = measure_speed(
        case,
        repeats=args.repeats,
        gamma=DEFAULT_GAMMA if args.gamma is None else args.gamma,
        peer=args.peer,
        draft_on=draft_on,
        report=_report,
    )
    if args.out is not None:
        kept_run.write_run(outcome, args.out)
    print(json.dumps(outcome) if args.json else as_table(outcome))
    if kept is None:
        return 0
    print("\n" + kept_run.as_table(kept, outcome), file=sys.stderr if args.json else sys.stdout)
    return int(kept_run.got_slower(kept, outcome))


def _read_by(pair: Any, kernel: Any) -> None:
    """Let both models of a pair read their prompts by a kernel; ``None``: as they do."""
    if kernel is None:
        return
    from hippo_jax.architectures.prompt_attention import check_kernel

    for model in (pair.target, pair.draft):
        check_kernel(kernel, model.dtype)
        model.attention = kernel


def _record(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    _check_clips(args, "--record")
    from hippo_jax.benchmark.kept_run import write_run
    from hippo_jax.benchmark.recording import record
    from hippo_jax.placement.pair import load_pair
    from hippo_jax.resources import EMBEDDED_PAIR

    if not args.record.absolute().parent.is_dir():
        raise HippoError(f"--record {args.record}: its folder is not there")
    outcome = _on_held_out_clips(args, record, lambda: [load_pair(EMBEDDED_PAIR)])
    write_run(outcome, args.record)
    places = sum(map(len, outcome["answers"]))
    right = sum(one.count("1") for one in outcome["answers"])
    return outcome, f"{100 * right / places:.1f} % of {places} tokens right; wrote {args.record}"


def _startup() -> tuple[dict[str, Any], str]:
    from hippo_jax.benchmark.startup import measure_startup

    outcome = measure_startup()
    lines = [f"import hippo_jax: {outcome['import_s']:.3f} s"]
    for name in ("cold", "warm"):
        parts = ", ".join(f"{p} {value:.2f}" for p, value in outcome[name]["seconds"].items())
        lines.append(f"{name}: {outcome[name]['wall_s']:.1f} s in all; {parts}")
    return outcome, "\n".join(lines)


def _acceptance(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    _check_clips(args, "--acceptance")
    from hippo_jax.benchmark.acceptance import as_table, measure_acceptance
    from hippo_jax.placement.pair import load_pair
    from hippo_jax.resources import EMBEDDED_PAIR

    outcome = _on_held_out_clips(args, measure_acceptance, lambda: [load_pair(EMBEDDED_PAIR)])
    return outcome, as_table(outcome)


def _modelled(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from hippo_jax.benchmark.kept_run import read_run
    from hippo_jax.benchmark.modelled import as_table, model_paper

    outcome = model_paper(read_run(args.modelled))
    return outcome, as_table(outcome)


def _precision(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    _check_clips(args, "--precision")
    import jax

    from hippo_jax.benchmark.precision import as_table, measure_precision
    from hippo_jax.cli.int8 import int8_roles
    from hippo_jax.placement.pair import load_pair
    from hippo_jax.resources import EMBEDDED_PAIR

    other = {"dtype": args.precision} if args.precision != "int8" else int8_roles("both")
    reference = None
    if jax.default_backend() != "cpu":
        # Else products of float32 numbers are rounded, and nothing could be expected of them.
        jax.config.update("jax_default_matmul_precision", "highest")
        reference = jax.devices("cpu")[0]

    def load() -> list[Any]:
        pairs = [load_pair(EMBEDDED_PAIR, **{"dtype": "float32", **how}) for how in ({}, other)]
        _read_by(pairs[1], args.attention)
        return pairs

    kind = args.precision if args.attention is None else f"{args.precision}, {args.attention}"
    measure = partial(measure_precision, kind=kind, reference=reference)
    outcome = _on_held_out_clips(args, measure, load)
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
