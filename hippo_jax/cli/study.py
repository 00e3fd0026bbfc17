"""``hippo study NAME``: the paper's experiments on a pair; a table, a CSV and a plot."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hippo_jax.cli.models import add_models, check_models, pair_sources
from hippo_jax.errors import HippoError

# What each study is, and how many clips it takes unless told.
STUDIES = {
    "position-bias": ("share of border tokens among those that each score keeps", 64),
    "ablation": ("acceptance with each of the three scores on and off", 32),
    "keep-ratio": ("MAT and time from all visual tokens to a fiftieth", 8),
    "gamma": ("tokens a round and time by how many tokens the draft proposes", 8),
    "batch": ("speed when several videos are decoded together", 32),
    "memory": ("what fits and how fast, by a device's memory; modelled", 16),
}
TIMED = ("keep-ratio", "gamma", "batch")
SWEPT = ("keep-ratio", "gamma", "batch", "memory")
REPEATS = 5
BATCH = 16  # of the embedded pair's clips, where a study leaves it open
KEEP_RATIO = 0.1


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo study``."""
    known = "; ".join(f"{name}: {said}" for name, (said, _) in STUDIES.items())
    parser = subparsers.add_parser(
        "study",
        help="the paper's experiments: a table, a CSV and a plot",
        description=f"Repeat an experiment of the paper on a pair. {known}. Prints a markdown"
        " table and writes NAME.csv and NAME.png. Answers that are not the target's own are an"
        " error.",
    )
    parser.add_argument("name", choices=STUDIES, metavar="NAME", help=", ".join(STUDIES))
    add_models(parser)
    parser.add_argument(
        "--videos",
        nargs="+",
        metavar="PATH",
        help="files or folders of frames (default: drawn clips that the embedded pair never saw)",
    )
    parser.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="drawn clips, default: "
        + ", ".join(f"{name} {count}" for name, (_, count) in STUDIES.items()),
    )
    parser.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help=f"of {', '.join(TIMED)}: turns of which the median is taken (default: {REPEATS})",
    )
    parser.add_argument(
        "--values",
        metavar="V,V,...",
        help="other settings than the study's own: keep ratios, gammas, batches, or sizes of"
        " memory as 8GB,24GB",
    )
    parser.add_argument(
        "--gamma", type=int, metavar="N", help="of all but the study of it (default: 5)"
    )
    parser.add_argument(
        "--keep-ratio",
        type=float,
        metavar="R",
        help=f"of all but the study of it (default: {KEEP_RATIO:g})",
    )
    parser.add_argument(
        "--schedule",
        choices=("sequential", "parallel"),
        help="of keep-ratio (default: sequential)",
    )
    parser.add_argument(
        "--border",
        type=int,
        metavar="N",
        help="of position-bias: width of the border in tokens (default: 1)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("studies"), metavar="DIR", help="default: studies"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Study, print and write; 0 when done."""
    _check(args)
    values = _values(args.name, args.values)
    videos = None if args.videos is None else [_video(path) for path in args.videos]
    from hippo_jax.studies.study import output_folder

    folder = output_folder(args.out)  # nobody shall measure for minutes and lose it
    from hippo_jax.cli.compilation_cache import enable_compilation_cache
    from hippo_jax.placement.pair import load_pair
    from hippo_jax.studies.material import Material, own_videos
    from hippo_jax.studies.unfinished import describe, kept
    from hippo_jax.training.report import card_clips

    enable_compilation_cache()
    name, sources = pair_sources(args)
    pair = load_pair(**sources)
    with tempfile.TemporaryDirectory() as drawn:
        if videos is None:
            count = STUDIES[args.name][1] if args.clips is None else args.clips
            drawn_files, asked = card_clips(Path(drawn), count)
            files, prompts = tuple(drawn_files), tuple(asked)
            batch = min(BATCH, count)
        else:
            (files, prompts), batch = own_videos(videos), 1
        material = Material(name, pair, files, prompts, batch)
        settings = describe(material, videos is None, _settings(args, values))
        with kept(folder / f"{args.name}.partial.jsonl", settings, _report) as once:
            study = _study(args, values)(material, once)
            # First, so that a full disk does not take what was measured.
            print(json.dumps(study.as_json(), allow_nan=False) if args.json else study.as_table())
            table, picture = study.write(folder)
    _report(f"wrote {table} and {picture}")
    return 0


def _settings(args: argparse.Namespace, values: Any) -> dict[str, Any]:
    """All that a turn or a batch of clips depends on, models and videos aside."""
    from hippo_jax.decoding.config import DEFAULT_GAMMA

    return {
        "values": values,
        "gamma": DEFAULT_GAMMA if args.gamma is None else args.gamma,
        "keep_ratio": KEEP_RATIO if args.keep_ratio is None else args.keep_ratio,
        "schedule": args.schedule or "sequential",
        "border": 1 if args.border is None else args.border,
    }


def _study(args: argparse.Namespace, values: Any) -> Callable[[Any, Any], Any]:
    """The study that was asked for, of its material and of what keeps its parts."""
    settings = _settings(args, values)
    gamma, ratio = settings["gamma"], settings["keep_ratio"]
    repeats = REPEATS if args.repeats is None else args.repeats
    study: Callable[..., Any]
    said: dict[str, Any] = {"report": _report}
    if args.name == "position-bias":
        from hippo_jax.studies.position_bias import study_position_bias as study

        said |= {"keep_ratio": ratio, "gamma": gamma, "border": settings["border"]}
    elif args.name == "ablation":
        from hippo_jax.studies.ablation import study_ablation as study

        said |= {"keep_ratio": ratio, "gamma": gamma}
    elif args.name == "keep-ratio":
        from hippo_jax.studies.keep_ratio import KEEP_RATIOS
        from hippo_jax.studies.keep_ratio import study_keep_ratio as study

        said |= {"keep_ratios": values or KEEP_RATIOS, "gamma": gamma, "repeats": repeats}
        said["schedule"] = settings["schedule"]
    elif args.name == "gamma":
        from hippo_jax.studies.gamma import GAMMAS
        from hippo_jax.studies.gamma import study_gamma as study

        said |= {"gammas": values or GAMMAS, "keep_ratio": ratio, "repeats": repeats}
    elif args.name == "batch":
        from hippo_jax.studies.batch import BATCHES
        from hippo_jax.studies.batch import study_batch as study

        said |= {"batches": values or BATCHES, "keep_ratio": ratio}
        said |= {"gamma": gamma, "repeats": repeats}
    else:
        from hippo_jax.studies.memory import study_memory as study

        said |= {"sizes": values, "keep_ratio": ratio, "gamma": gamma}
    return lambda material, once: study(material, once=once, **said)


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together, and options that would go unheard."""
    from hippo_jax.resources import EMBEDDED_PAIR

    check_models(args, "a study")
    foreign = args.target is not None or args.pair not in (None, EMBEDDED_PAIR)
    if foreign and args.videos is None:
        raise HippoError(
            f"only the pair {EMBEDDED_PAIR!r} has clips of its own, which a program draws; give "
            "--videos"
        )
    if args.clips is not None and args.videos is not None:
        raise HippoError("--clips counts drawn clips; leave it out, or --videos")
    takes = {
        "repeats": TIMED,
        "values": SWEPT,
        "gamma": tuple(name for name in STUDIES if name != "gamma"),
        "keep_ratio": tuple(name for name in STUDIES if name != "keep-ratio"),
        "schedule": ("keep-ratio",),
        "border": ("position-bias",),
    }
    for option, names in takes.items():
        if getattr(args, option) is not None and args.name not in names:
            goes = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
            raise HippoError(f"--{option.replace('_', '-')} goes with {goes}, not {args.name}")
    for option in ("clips", "repeats", "gamma", "border"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise HippoError(f"--{option} {value}: at least 1 is needed")
    if args.keep_ratio is not None and not 0 < args.keep_ratio <= 1:
        raise HippoError(f"--keep-ratio {args.keep_ratio}: it must be above 0 and at most 1")


def _values(name: str, text: str | None) -> tuple[Any, ...] | None:
    """What ``--values`` lists, in the unit of the study; ``None`` without it."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if name == "memory":
        from hippo_jax.cli.plan import parse_size

        try:
            found: tuple[Any, ...] = tuple(parse_size(part) for part in parts)
        except HippoError:
            raise HippoError(f"--values {text!r}: memory takes sizes, as 8GB,24GB") from None
    else:
        kind, least, most, says = {
            "keep-ratio": (float, 0.0, 1.0, "shares above 0 and at most 1, as 1,0.5,0.1"),
            "gamma": (int, 0, math.inf, "whole numbers of at least 1, as 1,2,4"),
            "batch": (int, 0, math.inf, "whole numbers of at least 1, as 1,8"),
        }[name]
        try:
            found = tuple(kind(part) for part in parts)
        except ValueError:
            found = ()
        if not found or not all(least < value <= most for value in found):
            raise HippoError(f"--values {text!r}: {name} takes {says}")
    if len(set(found)) < len(found):
        raise HippoError(f"--values {text!r}: each value once")
    return found


def _video(text: str) -> Path:
    path = Path(text).expanduser()
    if not text or not path.exists():
        raise HippoError(f"there is no file or folder {text!r}; check --videos")
    return path


def _report(line: str) -> None:
    print(f"hippo: {line}", file=sys.stderr, flush=True)
