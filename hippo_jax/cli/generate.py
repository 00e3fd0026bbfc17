"""``hippo generate [VIDEO] [PROMPT]``: describe a video."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from hippo_jax.cli.devices import Counts, add_devices, ask_for_devices, device_counts, place
from hippo_jax.cli.int8 import add_int8, int8_roles
from hippo_jax.cli.models import add_models, check_models, pair_name, pair_sources
from hippo_jax.errors import HippoError

DEFAULT_PROMPT = "Describe the video."
PLAIN = "autoregressive"


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo generate``."""
    parser = subparsers.add_parser(
        "generate",
        help="describe a video, or answer a question about it",
        description=(
            "Describe a video with a target and its draft (HIPPO). Without arguments: the embedded "
            "pair on the embedded clip."
        ),
    )
    parser.add_argument(
        "video", nargs="?", metavar="VIDEO", help="a video file, a folder of frames or an image"
    )
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help=f"default: {DEFAULT_PROMPT!r}")
    add_models(parser, "of the model that proposes; without it the target decodes alone")
    parser.add_argument(
        "--schedule",
        choices=(PLAIN, "sequential", "parallel", "auto"),
        default="auto",
        help="how the two work together; autoregressive: the target alone; auto (default): parallel"
        " where the draft has devices of its own, else sequential",
    )
    parser.add_argument(
        "--gamma",
        type=_gamma,
        metavar="N",
        help='tokens that the draft proposes a round, or "auto" (default: 5)',
    )
    parser.add_argument(
        "--keep-ratio",
        type=float,
        metavar="R",
        help="share of the visual tokens that the draft sees (default: the pair's own, else 0.1)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="default: 128")
    parser.add_argument("--temperature", type=float, metavar="T", help="sample; default: greedy")
    parser.add_argument("--top-p", type=float, metavar="P", help="sample from the likeliest share")
    parser.add_argument("--seed", type=int, metavar="N", help="of sampling; default: 0")
    parser.add_argument("--fps", type=float, help="sampling rate; default: the checkpoint's")
    parser.add_argument("--num-frames", type=int, metavar="N", help="frames instead of a rate")
    parser.add_argument("--start", type=float, metavar="S", help="seconds")
    parser.add_argument("--end", type=float, metavar="S", help="seconds")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="upper bound of a frame's area")
    add_int8(parser)
    add_devices(parser, "in one program, each device with room for its share of both models")
    parser.add_argument(
        "--show-tokens", metavar="OUT.png", help="write a picture of the tokens that the draft saw"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )


def run(args: argparse.Namespace) -> int:
    """Generate and print; 0 when done."""
    from hippo_jax.cli.compilation_cache import enable_compilation_cache
    from hippo_jax.cli.show_tokens import picture_path

    # Before anything is loaded: what can be refused without a model.
    alone = _decodes_alone(args)
    devices = _devices(args, alone)
    sampler = _sampler(args)
    config = None if alone else _config(args)
    request = {"video": _video(args), "prompt": _prompt(args), **_sampling_of_frames(args)}
    picture = None if args.show_tokens is None else picture_path(args.show_tokens)
    ask_for_devices(devices)
    enable_compilation_cache()
    from hippo_jax.cli.decode import decode
    from hippo_jax.inputs.prepare import prepare_inputs

    begin = time.perf_counter()
    models = _load(args, alone, devices)
    inputs = prepare_inputs(models, **request)
    loaded = time.perf_counter()
    if alone and args.schedule != PLAIN:
        print("hippo: there is no --draft: the target decodes alone", file=sys.stderr, flush=True)
    answer = decode(
        models,
        inputs,
        max_new_tokens=args.max_new_tokens,
        sampler=sampler,
        seed=args.seed or 0,
        config=config,
        say=None if args.json else _say,
    )
    result = _result(answer, inputs, models.tokenizer, loaded - begin)
    if args.json:
        print(json.dumps(result, allow_nan=False))
    else:
        print(flush=True)
        print(_summary(result, answer.gamma), file=sys.stderr)
    if picture is not None:
        _show_tokens(models, inputs, answer, config, picture)
    return 0


def _gamma(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor auto") from None


def _decodes_alone(args: argparse.Namespace) -> bool:
    """Whether the target works without a draft; HippoError for models and options that do not go
    together."""
    check_models(args)
    lonely = args.target is not None and args.draft is None
    if lonely and args.schedule in ("sequential", "parallel"):
        raise HippoError(f"--schedule {args.schedule} needs a draft; give --draft too")
    alone = lonely or args.schedule == PLAIN
    if not alone:
        return False
    cure = "choose another --schedule" if args.schedule == PLAIN else "give --draft"
    for name in ("gamma", "keep_ratio", "show_tokens"):
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            raise HippoError(f"{option} is about a draft, and the target decodes alone; {cure}")
    if args.int8 in ("draft", "both"):
        raise HippoError(
            f"--int8 {args.int8} is about a draft, and the target decodes alone; {cure}, or use "
            "--int8 target"
        )
    return True


def _devices(args: argparse.Namespace, alone: bool) -> Counts | None:
    counts = device_counts(args.devices)
    if alone and counts is not None and len(counts) == 2:
        raise HippoError(
            f"--devices {' '.join(args.devices)} is about a draft too, and the target decodes "
            "alone; give one number"
        )
    return counts


def _config(args: argparse.Namespace) -> Any:
    from hippo_jax.decoding.config import DEFAULT_GAMMA, HippoConfig
    from hippo_jax.inputs.buckets import bucket

    ratio = args.keep_ratio
    if ratio is None and args.target is None:
        ratio = _keep_ratio_of_pair(args)
    given = {} if ratio is None else {"keep_ratio": ratio}
    gamma = DEFAULT_GAMMA if args.gamma is None else args.gamma
    config = HippoConfig(gamma=gamma, schedule=args.schedule, **given)
    # As decoding itself would say, but before the models are loaded.
    room = bucket(args.max_new_tokens, 32)
    if isinstance(gamma, int) and gamma > room:
        raise HippoError(
            f"--gamma {gamma} is above {room}, the room for --max-new-tokens {args.max_new_tokens}"
            "; use a smaller one"
        )
    return config


def _keep_ratio_of_pair(args: argparse.Namespace) -> float | None:
    """What the card of a pair of the zoo says."""
    from hippo_jax.resources import PAIR_FILE, pair_directory

    card = pair_directory(pair_name(args)) / PAIR_FILE
    try:
        return tomllib.loads(card.read_text(encoding="utf-8")).get("defaults", {}).get("keep_ratio")
    except ValueError as error:  # no TOML, or no text
        raise HippoError(f"{card} cannot be read: {error}") from error


def _sampler(args: argparse.Namespace) -> Any:
    from hippo_jax.decoding.sampling import Greedy, Sampling

    if args.max_new_tokens < 1:
        raise HippoError(f"--max-new-tokens must be at least 1, got {args.max_new_tokens}")
    if args.temperature is not None and args.temperature <= 0:
        raise HippoError("--temperature must be above 0; leave it out for the likeliest tokens")
    if args.temperature is None and args.top_p is None:
        if args.seed is not None:
            raise HippoError("--seed is of sampling; give --temperature or --top-p too")
        return Greedy()
    temperature = 1.0 if args.temperature is None else args.temperature
    return Sampling(temperature=temperature, top_p=1.0 if args.top_p is None else args.top_p)


def _video(args: argparse.Namespace) -> str:
    from hippo_jax.resources import clip

    if args.video is None:
        return str(clip())
    if not args.video:
        raise HippoError("VIDEO is empty; give a file or a folder, or leave it out")
    video = os.path.expanduser(args.video)
    if not Path(video).exists():
        raise HippoError(
            f"there is no file or folder {args.video}; check the path (the video comes before the "
            "prompt, and a URL must be downloaded first)"
        )
    return video


def _prompt(args: argparse.Namespace) -> str:
    if args.prompt is None:
        return DEFAULT_PROMPT
    if not args.prompt.strip():
        raise HippoError("PROMPT is empty; ask something, or leave it out")
    return args.prompt


def _sampling_of_frames(args: argparse.Namespace) -> dict[str, Any]:
    from hippo_jax.inputs.sampling import check_rates

    if args.fps is not None and args.num_frames is not None:
        raise HippoError("give --fps or --num-frames, not both")
    check_rates(args.fps, args.num_frames)
    names = ("fps", "num_frames", "start", "end", "max_pixels")
    return {name: getattr(args, name) for name in names}


def _load(args: argparse.Namespace, alone: bool, devices: Counts | None) -> Any:
    """A ``ModelPair``, or the target alone."""
    from hippo_jax.placement.pair import load_pair
    from hippo_jax.resources import checkpoint_directory
    from hippo_jax.weights.load import load_model

    placement = place(devices, one_program=devices is not None and len(devices) == 2)
    small = int8_roles(args.int8)
    if alone:
        own = args.target
        if own is None:
            own = checkpoint_directory(pair_name(args), "target")
        quantize = small["quantize_target"]
        return load_model(own, dtype=args.dtype, mesh=placement.target, quantize=quantize)
    _, sources = pair_sources(args)
    return load_pair(**sources, placement=placement, **small)


def _say(piece: str) -> None:
    print(piece, end="", flush=True)


def _result(answer: Any, inputs: Any, tokenizer: Any, load_seconds: float) -> dict[str, Any]:
    """What ``--json`` prints."""
    generation, seconds = answer.generation, {"load": load_seconds, **answer.seconds}
    tokens = generation.tokens[0, : int(generation.lengths[0])].tolist()
    visual_tokens = int(inputs.visual_tokens.sum())
    stats = generation.stats
    counted: dict[str, Any] = dict.fromkeys(_STATS)  # plain decoding counts nothing
    if stats is not None:
        counted["rounds"] = int(stats.rounds.sum())
        for name in _STATS[1:]:
            value = getattr(stats, name)
            counted[name] = None if math.isnan(value) else value
    return {
        "text": generation.text(tokenizer)[0],
        "tokens": tokens,
        "schedule": answer.schedule,
        "visual_tokens": visual_tokens,
        "kept_visual_tokens": (
            visual_tokens if stats is None else int(stats.kept_visual_tokens.sum())
        ),
        "stats": counted,
        "seconds": seconds,
        "tokens_per_second": len(tokens) / (seconds["prefill"] + seconds["decode"]),
    }


_STATS = ("rounds", "mat", "mat_with_correction", "tokens_per_round", "acceptance_rate")


def _summary(result: dict[str, Any], gamma: int | None) -> str:
    """One line for people."""
    parts = [f"{len(result['tokens'])} tokens from {result['visual_tokens']} visual tokens"]
    if gamma is not None:
        parts[0] += f", {result['kept_visual_tokens']} of them kept for the draft"
        parts.append(f"{result['schedule']}, gamma {gamma}: {_counted(result)}")
    parts.append(", ".join(f"{name} {value:.2f} s" for name, value in result["seconds"].items()))
    return "; ".join([*parts, f"{result['tokens_per_second']:.1f} tokens/s"])


def _counted(result: dict[str, Any]) -> str:
    stats = result["stats"]
    if not stats["rounds"]:
        return "no round was needed"
    # What a run is depends on the schedule, so their MATs are not to be compared.
    said = []
    if stats["mat"] is not None:
        said.append(f"MAT {stats['mat']:.2f} ({result['schedule']} runs)")
    said.append(f"{stats['tokens_per_round']:.2f} tokens/round")
    if stats["acceptance_rate"] is not None:
        said.append(f"{100 * stats['acceptance_rate']:.0f} % accepted")
    return ", ".join(said)


def _show_tokens(models: Any, inputs: Any, answer: Any, config: Any, path: Path) -> None:
    from hippo_jax.cli.show_tokens import write_picture
    from hippo_jax.scoring.picture import token_picture

    stats = answer.generation.stats
    title = (
        f"{int(stats.kept_visual_tokens.sum())} of {int(stats.visual_tokens.sum())} visual tokens "
        f"kept, selector {config.scoring.selector}, keep ratio {config.keep_ratio:g}"
    )
    write_picture(token_picture(models, inputs, stats.kept_indices, title=title), path)
