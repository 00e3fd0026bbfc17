"""``hippo doctor``: what is installed, what it runs on, and whether it is complete.

The report never stops at the first trouble: each part that fails says so in one line and the rest
still prints. Exit status 1 if something stands in the way of ``hippo generate``.
"""

import argparse
import json
import os
import platform
import shutil
from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TypeVar

import hippo_jax
from hippo_jax import resources
from hippo_jax.cli.compilation_cache import compilation_cache_directory
from hippo_jax.errors import HippoError

T = TypeVar("T")

DISTRIBUTION = "hippo-jax"
# What a report about a problem needs to name. torch serves comparisons only and may be missing.
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "tokenizers"),
    *("safetensors", "huggingface_hub", "numpy", "imageio", "imageio-ffmpeg"),
)
OPTIONAL_PACKAGES = ("torch",)


def add_parser(subparsers: Any) -> None:
    """Declare ``hippo doctor``."""
    parser = subparsers.add_parser(
        "doctor", description="Show versions, devices, caches and the embedded pair."
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 if it found a problem, else 0."""
    report = examine()
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 1 if report["problems"] else 0


def examine() -> dict[str, Any]:
    """The report as plain data (strings, numbers, lists, dicts)."""
    problems: list[str] = []
    notes: list[str] = []
    return {
        "hippo_jax": {"version": hippo_jax.__version__, "path": str(Path(__file__).parents[1])},
        "system": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
        },
        "packages": _packages(problems),
        "devices": _devices(problems, notes),
        "video": _video_decoder(problems),
        "pairs": _pairs(problems),
        "caches": _caches(notes),
        "problems": problems,
        "notes": notes,
    }


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    package, system = report["hippo_jax"], report["system"]
    lines = [
        f"hippo_jax {package['version']}  {package['path']}",
        f"python {system['python']}, {system['platform']}, {system['cpus']} CPU cores",
    ]
    lines += ["", "packages"]
    lines += [
        f"  {name:18} {found or 'not installed'}" for name, found in report["packages"].items()
    ]
    lines += ["", "devices"]
    lines += [f"  {device}" for device in report["devices"]] or ["  none"]
    lines += ["", "video decoder", f"  {report['video'] or 'none'}"]
    lines += ["", "pairs"]
    for name, pair in report["pairs"].items():
        weights = ", ".join(f"{role} {_size(size)}" for role, size in pair["weights"].items())
        lines.append(
            f"  {name}: weights {weights or 'none'}; clips {', '.join(pair['clips']) or 'none'}"
        )
    if not report["pairs"]:
        lines.append("  none")
    lines += ["", "caches"]
    for name, cache in report["caches"].items():
        lines.append(f"  {name:18} {cache['path']} ({_size(cache['bytes'] or 0)})")
    for title in ("problems", "notes"):
        if report[title]:
            lines += ["", title, *(f"  - {line}" for line in report[title])]
    return "\n".join(lines)


def _packages(problems: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in (*PACKAGES, *OPTIONAL_PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            if name in PACKAGES:
                problems.append(f"{name} is not installed; reinstall hippo_jax with pip")
    problems.extend(_unmet_requirements())
    # The pair that is known to drift apart: a flax too old for its jax fails on import.
    for module in ("jax", "flax.nnx"):
        _attempt(problems, f"import {module}", partial(import_module, module))
    return found


def _unmet_requirements() -> list[str]:
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []  # run from a clone that is not installed: nothing to compare with
    unmet = []
    for line in declared:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # said above
        if not requirement.specifier.contains(version, prereleases=True):
            unmet.append(
                f"{requirement.name} {version} does not meet {requirement.specifier}; "
                f'run pip install "{requirement.name}{requirement.specifier}"'
            )
    return unmet


def _devices(problems: list[str], notes: list[str]) -> list[str]:
    # Looking must not take the memory of a GPU that another process is using.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    def look() -> list[str]:
        import jax

        return [_describe(device) for device in jax.local_devices()]

    devices = _attempt(problems, "find devices", look) or []
    nvidia = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    if nvidia and devices and all(line.startswith("cpu") for line in devices):
        notes.append(
            "there is an NVIDIA driver but jax uses the CPU; "
            "install the extra cuda12 or cuda13 (and look at JAX_PLATFORMS)"
        )
    return devices


def _describe(device: Any) -> str:
    memory = (device.memory_stats() or {}).get("bytes_limit")
    limit = f", {_size(memory)} for jax" if memory else ""
    return f"{device.platform}:{device.id} {device.device_kind}{limit}"


def _video_decoder(problems: list[str]) -> str | None:
    def look() -> str:
        import imageio_ffmpeg

        return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}  {imageio_ffmpeg.get_ffmpeg_exe()}"

    return _attempt(problems, "find ffmpeg", look)


def _pairs(problems: list[str]) -> dict[str, dict[str, Any]]:
    try:
        resources.pair_directory(resources.EMBEDDED_PAIR)
        resources.clip()
        for role in ("target", "draft"):
            resources.checkpoint_directory(resources.EMBEDDED_PAIR, role)
    except HippoError as error:
        problems.append(f"the embedded pair is not complete: {error}")
    try:
        names = resources.pair_names()
    except HippoError:
        return {}
    return {
        name: {"weights": _weights(name), "clips": resources.clip_names(name)} for name in names
    }


def _weights(pair: str) -> dict[str, int]:
    """Bytes on disk of each role's weights."""
    found = {}
    for role in ("target", "draft"):
        try:
            found[role] = _bytes(resources.checkpoint_directory(pair, role))
        except HippoError:
            continue
    return found


def _caches(notes: list[str]) -> dict[str, dict[str, Any]]:
    def hub() -> Path:
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(HF_HUB_CACHE)

    folders = {
        "compiled programs": compilation_cache_directory(),
        "hub downloads": _attempt(notes, "find the hub cache", hub),
    }
    return {
        name: {
            "path": str(folder),
            "bytes": _attempt(notes, f"read {folder}", partial(_bytes, folder)),
        }
        for name, folder in folders.items()
        if folder
    }


def _attempt(problems: list[str], what: str, action: Callable[[], T]) -> T | None:
    """The action's result; on any failure one line in `problems` and None."""
    try:
        return action()
    except Exception as error:
        reason = " ".join(str(error).split())
        problems.append(f"cannot {what}: {type(error).__name__}: {reason}")
        return None


def _bytes(folder: Path) -> int:
    """Size of the files below a folder, links not followed; 0 if it is not there."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
