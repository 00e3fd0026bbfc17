"""``hippo eval``: a pair on a benchmark, over devices and hosts, resumable."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from hippo_jax.cli.devices import add_devices, ask_for_devices, device_counts, place
from hippo_jax.cli.models import add_models, check_models, pair_sources
from hippo_jax.errors import HippoError

DEMO = "demo"


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo eval``."""
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a pair on a benchmark, resumable",
        description=(
            "Evaluate a pair: speed on captions, quality on multiple-choice questions. The same "
            "command goes on where it was. Several processes share the work if they are started "
            "as hippo_jax.scheduling.processes says, or with --part."
        ),
    )
    parser.add_argument(
        "benchmark",
        nargs="?",
        default=DEMO,
        metavar="BENCHMARK",
        help=(
            "demo (drawn clips; default), longvideobench, lvbench, mlvu, mvbench, "
            "videodetailcaption, videomme, or a JSONL file of your own "
            "(hippo_jax/evaluation/samples.py)"
        ),
    )
    parser.add_argument(
        "--data", type=_path, metavar="DIR", help="the benchmark's folder, unpacked"
    )
    parser.add_argument("--videos", type=_path, metavar="DIR", help="its videos, if elsewhere")
    parser.add_argument("--out", type=_path, metavar="DIR", help="results; default: eval-BENCHMARK")
    parser.add_argument("--limit", type=_positive, metavar="N", help="the first N samples only")
    parser.add_argument(
        "--ask",
        choices=("questions", "captions", "both"),
        help="of a benchmark of questions: these, captions of their videos, or both (default; "
        "of a JSONL file: its own prompts)",
    )
    parser.add_argument(
        "--instruction",
        metavar="TEXT",
        help="how to answer a question, instead of our sentence: the benchmark's own, to compare",
    )
    add_models(parser)
    parser.add_argument(
        "--schedule",
        choices=("sequential", "parallel", "auto"),
        default="auto",
        help="auto (default): parallel where the draft has devices of its own, else sequential",
    )
    parser.add_argument("--gamma", type=_positive, metavar="N", help="draft length, default 5")
    parser.add_argument("--keep-ratio", type=float, default=0.1, metavar="R", help="default: 0.1")
    parser.add_argument(
        "--max-new-tokens", type=_positive, default=128, metavar="N", help="default: 128"
    )
    parser.add_argument("--fps", type=float, help="sampling rate; default: the checkpoint's")
    parser.add_argument("--num-frames", type=_positive, metavar="N", help="instead of a rate")
    parser.add_argument("--max-pixels", type=_positive, metavar="N", help="of a frame, at most")
    parser.add_argument(
        "--replicas", type=_positive, default=1, metavar="N", help="devices, a pair on each"
    )
    add_devices(parser, "in two programs, each device with its own model's share only")
    parser.add_argument(
        "--batch",
        type=_positive,
        default=1,
        metavar="N",
        help="rows that a pair decodes together; default: 1",
    )
    parser.add_argument(
        "--check", action="store_true", help="compare every answer with plain decoding's tokens"
    )
    parser.add_argument(
        "--no-baseline", action="store_true", help="no plain decoding, so no speedup"
    )
    parser.add_argument(
        "--retry-errors", action="store_true", help="evaluate samples again that were errors"
    )
    parser.add_argument(
        "--part", type=_part, metavar="I/N", help="only part I (from 0) of N, by itself"
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="evaluate nothing, sum up what all parts wrote to --out",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the summary; 0 when done, 1 where ``--check`` found other tokens."""
    _check(args)
    out = args.out or Path(f"eval-{Path(args.benchmark).stem}")
    if args.merge:
        return _finish(out, args)
    with _joined():
        return _evaluate(args, out)


def _positive(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        found = 0
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return found


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text).expanduser()


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; the first of two is 0/2")
    return int(index), int(count)


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything is loaded."""
    check_models(args, "an evaluation")
    if args.fps is not None and args.num_frames is not None:
        raise HippoError("give --fps or --num-frames, not both")
    if device_counts(args.devices) is not None and args.replicas > 1:
        raise HippoError(
            "--devices splits one pair and --replicas are whole pairs; give one of them"
        )
    if args.part is not None and "HIPPO_COORDINATOR" in os.environ:
        raise HippoError("--part is for processes that do not know of each other; leave it out")
    own = args.benchmark.endswith(".jsonl")
    if (own or args.benchmark == DEMO) and args.data is not None:
        raise HippoError(f"{args.benchmark} takes no --data; leave it out")
    if args.benchmark == DEMO and args.videos is not None:
        raise HippoError("demo draws its own clips; leave out --videos")
    if args.benchmark == DEMO and args.ask in ("questions", "both"):
        raise HippoError("demo has captions only; leave out --ask")
    if args.videos is not None and not args.videos.is_dir():
        raise HippoError(f"there is no folder {args.videos}; give the folder of the videos")
    if not own and args.benchmark != DEMO and args.data is None and not args.merge:
        raise HippoError(f"say where {args.benchmark} lies: --data DIR")


def _joined() -> AbstractContextManager[Any]:
    """Together with other processes, if this one was started as one of several."""
    if "HIPPO_COORDINATOR" not in os.environ:
        return nullcontext()
    from hippo_jax.scheduling.processes import joined

    return joined()


def _share(args: argparse.Namespace) -> Any:
    from hippo_jax.evaluation.results import Share

    if args.part is not None:
        return Share(*args.part)
    if "HIPPO_COORDINATOR" not in os.environ:
        return Share()
    import jax

    return Share(jax.process_index(), jax.process_count())


def _evaluate(args: argparse.Namespace, out: Path) -> int:
    from hippo_jax.cli.compilation_cache import enable_compilation_cache
    from hippo_jax.cli.progress import Progress
    from hippo_jax.evaluation.evaluate import complete, describe, run_missing, wait_for_others

    settings = _settings(args)
    samples, root = _samples(args, out)
    ask_for_devices(settings.devices or (args.replicas,))
    enable_compilation_cache()
    share = _share(args)
    name, sources = pair_sources(args)
    calls = _calls(settings, sources)
    benchmark = Path(args.benchmark).name  # of a file the name alone: it may move
    manifest = describe(benchmark, samples, root, calls.pair, name, settings, share)
    run_missing(
        out,
        manifest,
        samples,
        calls,
        settings,
        share,
        retry_errors=args.retry_errors,
        report=Progress(),
    )
    if share.count > 1 and args.part is None and not wait_for_others(out, len(samples), share):
        _say(f"the other processes write elsewhere; bring their files to {out} and use --merge")
        return 0
    if not complete(out, len(samples)):
        _say(f"part {share.index} of {share.count} is done; the last one to end sums up")
        return 0
    if args.part is None and share.index > 0:
        return 0  # the first process sums up
    return _finish(out, args)


def _calls(settings: Any, sources: dict[str, Any]) -> Any:
    """The pair where it decodes."""
    from hippo_jax.evaluation.placed import PlacedPair
    from hippo_jax.evaluation.replicas import Replicas
    from hippo_jax.placement.pair import load_pair

    pair = load_pair(**sources, placement=place(settings.devices, one_program=False))
    common = settings.batch, settings.max_new_tokens, settings.config
    if settings.devices is None:
        return Replicas(pair, settings.replicas, *common)
    return PlacedPair(pair, *common)


def _finish(out: Path, args: argparse.Namespace) -> int:
    from hippo_jax.evaluation.evaluate import sum_up
    from hippo_jax.evaluation.report import as_markdown

    found = sum_up(out)
    print(json.dumps(found, allow_nan=False) if args.json else as_markdown(found), end="")
    if args.json:
        print()
    check = found["check"]
    return 1 if args.check and check is not None and check["equal"] < check["compared"] else 0


def _settings(args: argparse.Namespace) -> Any:
    from hippo_jax.decoding.config import DEFAULT_GAMMA, HippoConfig
    from hippo_jax.evaluation.runner import Settings
    from hippo_jax.inputs.buckets import bucket

    gamma = DEFAULT_GAMMA if args.gamma is None else args.gamma
    room = bucket(args.max_new_tokens, 32)
    if gamma > room:
        raise HippoError(
            f"--gamma {gamma} is above {room}, the room for --max-new-tokens {args.max_new_tokens}"
        )
    devices, schedule = device_counts(args.devices), args.schedule
    if schedule == "auto":  # which it was shall be written down
        schedule = "parallel" if devices is not None and len(devices) == 2 else "sequential"
    return Settings(
        config=HippoConfig(gamma=gamma, keep_ratio=args.keep_ratio, schedule=schedule),
        max_new_tokens=args.max_new_tokens,
        fps=args.fps,
        num_frames=args.num_frames,
        max_pixels=args.max_pixels,
        replicas=args.replicas,
        batch=args.batch,
        devices=devices,
        baseline=not args.no_baseline,
        check=args.check,
    )


def _samples(args: argparse.Namespace, out: Path) -> tuple[list[Any], Path]:
    """What is asked, and the folder that its videos lie in."""
    from hippo_jax.evaluation.asked import asked
    from hippo_jax.evaluation.samples import read_jsonl

    if args.benchmark == DEMO:
        from hippo_jax.evaluation.demo import COUNT, draw_demo

        return draw_demo(out / "clips", args.limit or COUNT), out
    if args.benchmark.endswith(".jsonl"):
        from hippo_jax.evaluation.choice import Style

        file = Path(args.benchmark).expanduser()
        found = read_jsonl(file, args.videos, Style().saying(args.instruction))
        root = args.videos or file.parent
    else:
        from hippo_jax.evaluation.benchmarks import read_benchmark

        found = read_benchmark(args.benchmark, args.data, args.videos, instruction=args.instruction)
        root = args.videos or args.data
    found = found[: args.limit]
    if args.benchmark.endswith(".jsonl") and args.ask is None:
        return found, root
    return asked(found, args.ask or "both"), root


def _say(line: str) -> None:
    print(f"hippo: {line}", file=sys.stderr, flush=True)
