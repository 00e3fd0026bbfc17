"""``hippo plan``: what a pair needs on each device, and whether it fits."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hippo_jax.cli.int8 import add_int8, int8_roles
from hippo_jax.cli.models import add_dtype
from hippo_jax.errors import HippoError

UNITS = {"": 1, "B": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}

# What a GPU has and what jax may use of it differ.
_GPU_SHARE = (
    "By default jax takes 75 % of a GPU's memory; XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 in the "
    "environment makes it 95 %"
)


def add_parser(subparsers: Any) -> None:
    """Declare the arguments of ``hippo plan``."""
    parser = subparsers.add_parser(
        "plan",
        help="memory of a pair on given devices, from sizes alone",
        description=(
            "Weights, caches, inputs and peak activations of a pair on each device, and whether"
            " that fits. Nothing is loaded, and the devices need not be there. Without models: all"
            " published pairs. SOURCE is a published name (qwen2.5-vl-7b), a directory, or a hub id"
            " (only its small files are downloaded)."
        ),
    )
    parser.add_argument("--target", metavar="SOURCE", help="the model that answers")
    parser.add_argument(
        "--draft", metavar="SOURCE", help="the model that proposes; default: the target alone"
    )
    parser.add_argument(
        "--devices",
        default="1",
        metavar="N",
        help="how many, or as T+D how many for target and draft (default: 1)",
    )
    parser.add_argument(
        "--placement",
        choices=("shared", "meshes", "program"),
        help="shared: both models over all devices, by turns (default of N); meshes: devices of"
        " their own, two programs (default of T+D); program: the same in one program",
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="of each device, as 16GB or 80GiB (default: this one's)"
    )
    parser.add_argument(
        "--platform",
        choices=("cpu", "gpu", "tpu"),
        help="of the devices (default: gpu with --memory, else this machine's)",
    )
    parser.add_argument("--frames", type=int, metavar="F", help="of the video (default: 32)")
    parser.add_argument(
        "--size",
        metavar="HxW",
        help="pixels of a frame as the model sees it (default: 448x448; families with frames of one"
        " size take their own)",
    )
    parser.add_argument(
        "--visual-tokens", type=int, metavar="N", help="so many in all, whatever the size of frames"
    )
    parser.add_argument(
        "--text-tokens", type=int, metavar="N", help="of prompt and template (default: 64)"
    )
    parser.add_argument("--new-tokens", type=int, metavar="N", help="of the answer (default: 128)")
    parser.add_argument("--batch", type=int, metavar="B", help="rows (default: 1)")
    parser.add_argument("--gamma", type=int, metavar="N", help="as for generate (default: 5)")
    parser.add_argument(
        "--keep-ratio", type=float, metavar="R", help="as for generate (default: 0.1)"
    )
    add_dtype(parser, "bfloat16, on CPU float32")
    add_int8(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the plan; 0 whether it fits or not."""
    memory, platform = _memory(args.memory, args.platform)
    arguments = _arguments(args, memory, platform)
    if args.draft is None and args.target is not None and args.int8 in ("draft", "both"):
        raise HippoError(f"--int8 {args.int8} is about a draft; give --draft, or --int8 target")
    if args.target is None:
        if args.draft is not None:
            raise HippoError("--draft needs --target: the model that answers")
        return _published(arguments, args.json)
    from hippo_jax.placement.plan_memory import plan_memory

    target = _config(args.target)
    draft = None if args.draft is None else _config(args.draft)
    plan = plan_memory(target, draft, **arguments)
    print(json.dumps(_as_json(plan)) if args.json else _as_text(plan, platform))
    return 0


def _config(source: str) -> Any:
    """The sizes of a published name, a directory or a hub id."""
    from hippo_jax.architectures.published import published_config, published_names
    from hippo_jax.placement.pair import known

    if not source:
        raise HippoError("a source is empty; give a published name, a directory or a hub id")
    if source in published_names() and not Path(source).is_dir():
        return published_config(source)
    if "/" not in source and not Path(source).expanduser().exists():
        raise HippoError(
            f"{source}: neither a directory nor a published size; those are "
            f"{', '.join(published_names())}"
        )
    return known(source)[0]


def _memory(given: str | None, platform: str | None) -> tuple[Any, str]:
    """Memory of a device and its platform."""
    from hippo_jax.placement.memory import Memory, device_memory
    from hippo_jax.weights.host import default_device

    if given is not None:
        return Memory(parse_size(given)), platform or "gpu"
    device = default_device()
    if platform not in (None, device.platform):
        raise HippoError(f"this machine has no {platform}; say its memory too, as --memory 16GB")
    return device_memory(device), device.platform


def parse_size(text: str) -> int:
    """Bytes from ``16GB`` (powers of 1000) or ``16GiB`` (powers of 1024)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", text, re.IGNORECASE)
    if found is None or (found[3] and not found[2]) or not float(found[1]):
        raise HippoError(f"--memory {text!r}: write a size as 16GB or 80GiB")
    unit = UNITS[found[2].upper()]
    if found[3]:
        unit = 1024 ** list(UNITS)[1:].index(found[2].upper())
    return int(float(found[1]) * unit)


def _arguments(args: argparse.Namespace, memory: Any, platform: str) -> dict[str, Any]:
    from hippo_jax.decoding.config import HippoConfig
    from hippo_jax.placement.call_sizes import Call

    if args.visual_tokens is not None and args.size is not None:
        raise HippoError("give --size or --visual-tokens, not both")
    call = {
        "frames": args.frames,
        "size": None if args.size is None else _pixels(args.size),
        "visual_tokens": args.visual_tokens,
        "text_tokens": args.text_tokens,
        "max_new_tokens": args.new_tokens,
        "batch": args.batch,
    }
    asked = {"gamma": args.gamma, "keep_ratio": args.keep_ratio}
    config = HippoConfig(**{name: value for name, value in asked.items() if value is not None})
    return {
        "call": Call(**{name: value for name, value in call.items() if value is not None}),
        "layout": _layout(args.devices, args.placement),
        "dtype": args.dtype or ("float32" if platform == "cpu" else "bfloat16"),
        "gamma": config.gamma,
        "keep_ratio": config.keep_ratio,
        "memory": memory,
        "platform": platform,
        **int8_roles(args.int8),
    }


def _pixels(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise HippoError(f"--size {text!r}: write height and width as 448x448")
    return int(found[1]), int(found[2])


def _layout(devices: str, placement: str | None) -> Any:
    from hippo_jax.placement.plan_memory import Layout

    found = re.fullmatch(r"(\d+)(?:\+(\d+))?", devices)
    if found is None:
        raise HippoError(f"--devices {devices!r}: write a number, or two as 3+1")
    first, second = int(found[1]), found[2]
    kind: Any = placement or ("shared" if second is None else "meshes")
    if second is not None:
        return Layout(first, int(second), kind)
    if kind == "shared":
        return Layout(first, first)
    if first < 2:
        raise HippoError(f"--placement {placement} needs devices for each model, as --devices 3+1")
    return Layout(first - 1, 1, kind)


def _published(arguments: dict[str, Any], as_json: bool) -> int:
    """All published pairs, those that need least first."""
    from hippo_jax.placement.memory import as_text
    from hippo_jax.placement.plan_memory import published_plans

    found = sorted(published_plans(**arguments), key=lambda item: item[2].most)
    if as_json:
        rows = [{"target": t, "draft": d, **_as_json(plan)} for t, d, plan in found]
        print(json.dumps({"pairs": rows}))
        return 0
    table = [("target", "draft", "visual tokens", "weights", "all in all", "")]
    for target, draft, plan in found:
        weights = as_text(sum(role.weights for role in plan.roles))
        table.append(
            (target, draft, str(plan.visual_tokens), weights, as_text(plan.most), plan.verdict)
        )
    print("\n".join(_lines(table)))
    platform = arguments["platform"]
    print(_said(found[0][2], platform) if found else "no published pair takes such a prompt")
    return 0


def _as_text(plan: Any, platform: str) -> str:
    from hippo_jax.placement.memory import as_text

    heads = ("role", "devices", "weights, each", "cache", "activations", "in a round")
    table: list[tuple[str, ...]] = [heads]
    for role in plan.roles:
        each = (role.weights, role.cache, role.reading, role.rounds)
        table.append((role.role, str(role.devices), *map(as_text, each)))
    prompts = " and ".join(str(width) for width in plan.prompt_tokens)
    peak = " and ".join(as_text(each) for each in plan.device)
    which = " (the target's, the draft's)" if len(plan.device) > 1 else ""
    return "\n".join(
        [
            *_lines(table),
            f"{plan.visual_tokens} visual tokens, prompts of {prompts} tokens; "
            f"inputs {as_text(plan.inputs)} a device",
            f"peak of a device{which}: {peak}",
            _said(plan, platform)
            if plan.memory is None
            else f"{plan.verdict}: {_said(plan, platform)}",
        ]
    )


def _said(plan: Any, platform: str) -> str:
    """What the verdict is about."""
    from hippo_jax.placement.memory import as_text

    if plan.memory is None:
        return "this device does not say what it has; give --memory"
    if plan.memory.shared:
        return f"all devices share {as_text(plan.memory.size)}"
    said = f"a device has {as_text(plan.memory.size)}; tight is above nine tenths of it"
    return f"{said}. {_GPU_SHARE}" if platform == "gpu" else said


def _lines(table: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns in line: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = zip(row, widths, strict=True)
        lines.append(
            "  ".join(
                f"{cell:>{width}}" if _numeric(table, at) else f"{cell:{width}}"
                for at, (cell, width) in enumerate(cells)
            ).rstrip()
        )
    return lines


def _numeric(table: Sequence[tuple[str, ...]], column: int) -> bool:
    return all(row[column][:1].isdigit() for row in table[1:])


def _as_json(plan: Any) -> dict[str, Any]:
    return {
        "verdict": plan.verdict,
        "memory": None if plan.memory is None else plan.memory.size,
        "peak_per_device": list(plan.device),
        "most": plan.most,
        "inputs": plan.inputs,
        "visual_tokens": plan.visual_tokens,
        "prompt_tokens": list(plan.prompt_tokens),
        "roles": {
            role.role: {
                "devices": role.devices,
                "weights": role.weights,
                "cache": role.cache,
                "activations": role.activations,
                "reading": role.reading,
                "rounds": role.rounds,
            }
            for role in plan.roles
        },
    }
