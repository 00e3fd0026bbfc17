"""``hippo generate [VIDEO] [PROMPT]``: describe a video.

Prefill and decoding are two programs compiled ahead of time from the functions that ``generate``
is made of, so that compilation, prefill and decoding can be timed apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

DEFAULT_PROMPT = "Describe the video."


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo generate``."""
    parser = subparsers.add_parser(
        "generate",
        help="describe a video, or answer a question about it",
        description=(
            "Describe a video. Without arguments: the embedded models on the embedded clip."
        ),
    )
    parser.add_argument(
        "video", nargs="?", metavar="VIDEO", help="a video file, a folder of frames or an image"
    )
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help=f"default: {DEFAULT_PROMPT!r}")
    parser.add_argument("--pair", metavar="NAME", help="a pair of the zoo (default: demo)")
    parser.add_argument("--target", metavar="SOURCE", help="directory or hub id of the model")
    parser.add_argument(
        "--schedule",
        choices=("autoregressive",),
        default="autoregressive",
        help="how tokens are decoded (default: autoregressive)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="default: 128")
    parser.add_argument("--temperature", type=float, metavar="T", help="sample; default: greedy")
    parser.add_argument("--top-p", type=float, metavar="P", help="sample from the likeliest share")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of sampling; default: 0")
    parser.add_argument("--fps", type=float, help="sampling rate; default: the checkpoint's")
    parser.add_argument("--num-frames", type=int, metavar="N", help="frames instead of a rate")
    parser.add_argument("--start", type=float, metavar="S", help="seconds")
    parser.add_argument("--end", type=float, metavar="S", help="seconds")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="upper bound of a frame's area")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default: the device's"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )


def run(args: argparse.Namespace) -> int:
    """Generate and print; 0 when done."""
    from hippo_jax.cli.compilation_cache import enable_compilation_cache

    # Before anything is loaded: what can be refused without a model.
    sampler = _sampler(args)
    source = _source(args)
    video = _video(args)
    enable_compilation_cache()
    result = _generate(args, source, video, sampler)
    if args.json:
        print(json.dumps(result))
        return 0
    print(result["text"])
    seconds = result["seconds"]
    print(
        f"{len(result['tokens'])} tokens from {result['visual_tokens']} visual tokens; "
        + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
        + f"; {result['tokens_per_second']:.1f} tokens/s",
        file=sys.stderr,
    )
    return 0


def _sampler(args: argparse.Namespace) -> Any:
    from hippo_jax.decoding.sampling import Greedy, Sampling
    from hippo_jax.errors import HippoError

    if args.max_new_tokens < 1:
        raise HippoError(f"--max-new-tokens must be at least 1, got {args.max_new_tokens}")
    if args.fps is not None and args.num_frames is not None:
        raise HippoError("give --fps or --num-frames, not both")
    if args.temperature is not None and args.temperature <= 0:
        raise HippoError("--temperature must be above 0; leave it out for the likeliest tokens")
    if args.temperature is None and args.top_p is None:
        return Greedy()
    temperature = 1.0 if args.temperature is None else args.temperature
    return Sampling(temperature=temperature, top_p=1.0 if args.top_p is None else args.top_p)


def _source(args: argparse.Namespace) -> str:
    from hippo_jax.errors import HippoError
    from hippo_jax.resources import EMBEDDED_PAIR, checkpoint_directory

    if args.target is not None:
        if args.pair is not None:
            raise HippoError("give --pair or --target, not both")
        return args.target
    return str(checkpoint_directory(EMBEDDED_PAIR if args.pair is None else args.pair, "target"))


def _video(args: argparse.Namespace) -> str:
    from hippo_jax.errors import HippoError
    from hippo_jax.resources import clip

    if args.video is None:
        return str(clip())
    if not args.video:
        raise HippoError("VIDEO is empty; give a file or a folder, or leave it out")
    if not Path(args.video).exists():
        raise HippoError(
            f"there is no file or folder {args.video}; check the path (the video comes before the "
            "prompt, and a URL must be downloaded first)"
        )
    return args.video


def _generate(args: argparse.Namespace, source: str, video: str, sampler: Any) -> dict[str, Any]:
    import jax
    import numpy as np

    from hippo_jax.decoding.arguments import KEY_INSIDE, make_settings
    from hippo_jax.decoding.generate import Generation, decode_loop, prefill_state
    from hippo_jax.inputs.prepare import prepare_inputs
    from hippo_jax.weights.load import load_model

    begin = time.perf_counter()
    model = load_model(source, dtype=args.dtype)
    inputs = prepare_inputs(
        model,
        video,
        DEFAULT_PROMPT if args.prompt is None else args.prompt,
        fps=args.fps,
        num_frames=args.num_frames,
        start=args.start,
        end=args.end,
        max_pixels=args.max_pixels,
    )
    visual_tokens = int(inputs.visual_tokens.sum())
    # The key is made inside the programs from the seed, which spares a program of its own.
    settings, limit = make_settings(
        model, inputs, args.max_new_tokens, None, sampler, KEY_INSIDE, None
    )
    tokenizer = model.tokenizer
    loaded = time.perf_counter()

    def prefill(model: Any, inputs: Any, limit: Any, seed: Any) -> Any:
        return prefill_state(model, inputs, limit, jax.random.key(seed), settings)

    def decode(model: Any, state: Any, next_position: Any, limit: Any, seed: Any) -> Any:
        key = jax.random.key(seed)
        return decode_loop(model, state, next_position, limit, key, settings)

    seed = np.uint32(args.seed % 2**32)
    prefill_lowered = jax.jit(prefill).lower(model, inputs, limit, seed)
    prefill_program = prefill_lowered.compile()
    state_shape = prefill_lowered.out_info
    decode_program = (
        jax.jit(decode).lower(model, state_shape, inputs.next_position, limit, seed).compile()
    )
    compiled = time.perf_counter()
    state = prefill_program(model, inputs, limit, seed)
    jax.block_until_ready(state.tokens)
    prefilled = time.perf_counter()
    final = decode_program(model, state, inputs.next_position, limit, seed)
    tokens, lengths = np.asarray(final.tokens), np.asarray(final.lengths)
    decoded = time.perf_counter()
    count = int(lengths[0])
    return {
        "text": Generation(final.tokens, final.lengths).text(tokenizer)[0],
        "tokens": tokens[0, :count].tolist(),
        "schedule": args.schedule,
        "visual_tokens": visual_tokens,
        "kept_visual_tokens": visual_tokens,
        "stats": dict.fromkeys(_STATS),  # counters of speculation: plain decoding has none
        "seconds": {
            "load": loaded - begin,
            "compile": compiled - loaded,
            "prefill": prefilled - compiled,
            "decode": decoded - prefilled,
        },
        "tokens_per_second": count / (decoded - compiled),
    }


_STATS = ("rounds", "mat", "mat_with_correction", "tokens_per_round", "acceptance_rate")
