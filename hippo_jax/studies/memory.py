"""``hippo study memory``: what fits, and how fast, as a device's memory shrinks. All modelled but
the acceptance, which is measured on the pair at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.published import published_config
from hippo_jax.benchmark.acceptance import NEW_TOKENS, Setting, check_same
from hippo_jax.benchmark.measure import Once, directly, machine
from hippo_jax.decoding.generate import generate
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.memory import as_text
from hippo_jax.resources import EMBEDDED_PAIR
from hippo_jax.scheduling.time_model import best
from hippo_jax.scoring.selection import check_keep_ratio
from hippo_jax.studies.charts import Lines
from hippo_jax.studies.fit import GAMMAS, KINDS, Candidate
from hippo_jax.studies.material import Material
from hippo_jax.studies.study import Column, Study
from hippo_jax.studies.sweep import point

SIZES = tuple(gigabytes * 10**9 for gigabytes in (8, 12, 16, 24, 48, 80))
MULTIPLES = (1.25, 1.5, 2.0, 4.0, 8.0)  # of the embedded pair's float32 weights, small as they are
# Of each family a pair that a device of some of these sizes holds.
PUBLISHED = (
    ("internvl3-2b", "internvl3-1b"),
    ("qwen3-vl-4b", "qwen3-vl-2b"),
    ("qwen2-vl-7b", "qwen2-vl-2b"),
    ("llava-onevision-7b", "llava-onevision-0.5b"),
    ("qwen2.5-vl-7b", "qwen2.5-vl-3b"),
)
SMALL = ("bfloat16", "bfloat16, int8 kernels")  # those that published pairs are planned in


def size_text(memory: Any) -> str:
    """Bytes of a device for people: devices are sold by powers of 1000."""
    return f"{memory / 1e9:g} GB" if memory >= 10**9 else as_text(memory)


COLUMNS = (
    Column("pair", "pair"),
    Column("weights", "weights"),
    Column("memory_bytes", "memory of the device", size_text),
    Column("weights_gib", "weights of both, GiB", ".3g"),
    Column("modelled_frames", "longest video, frames", "g"),
    Column("limited_by", "limited by"),
    Column("modelled_visual_tokens", "visual tokens", "g"),
    Column("modelled_frames_alone", "longest video of the target alone", "g"),
    Column("modelled_gamma", "best gamma", "g"),
    Column("modelled_speedup", "modelled speed of decoding at that length", ".2f"),
)


def study_memory(
    material: Material,
    *,
    sizes: Sequence[int] | None = None,
    keep_ratio: float,
    gamma: int,
    report: Callable[[str], None] = lambda line: None,
    once: Once = directly,
) -> Study:
    """Which pairs fit one device, how long a video, and what speculation is worth there.

    The longest video is the largest number of frames for which ``placement.plan_memory`` (weights,
    caches, inputs and peak activations, from sizes alone) stays within the memory. The speed is
    that of ``scheduling.time_model`` for turns on one device, at the best gamma:
    ``t_target / ((gamma t_draft + t_target) / (1 + a + ... + a^gamma))`` with t proportional to the
    bytes a step reads (decoder weights and cache: the longer the video, the more the target reads
    and the pruned draft does not), and a the acceptance that was measured on ``material``. Other
    pairs have other acceptance; arithmetic counts as free, so it is an upper bound. HIPPO's claim
    behind it is that a draft that sees a tenth of the video costs little time and memory.

    Args:
        sizes: bytes of a device; ``None``: some for the published pairs, and for the embedded pair
            multiples of its weights. A pair of one's own is planned alone.
        gamma: of the answers that acceptance is measured on.

    Raises:
        HippoError: no acceptance to measure, other tokens than the target's.
    """
    check_keep_ratio(keep_ratio)
    acceptance, size = _measured(material, keep_ratio, gamma, report, once)
    rows: list[dict[str, Any]] = []
    for candidate, memories in _candidates(material, sizes, keep_ratio, size):
        report(f"planning {candidate.name}, {candidate.kind}")
        rows += [_row(candidate, memory, acceptance) for memory in memories]
    return Study(
        name="memory",
        title="What fits a device and how fast it decodes as memory shrinks: modelled",
        about=f"modelled from sizes: one device, one video, {NEW_TOKENS} new tokens, frames of "
        f"448 x 448 pixels or the family's own size ({size[0]} x {size[1]} for "
        f"{material.name}), keep ratio {keep_ratio:g}; acceptance {100 * acceptance:.1f} % "
        f"measured on {material.said}",
        columns=COLUMNS,
        rows=tuple(rows),
        panels=tuple(_panels(rows)),
        machine=machine(),
        notes=(
            "0 frames: it does not fit. Speed is times the target alone, for steps that take as "
            "long as reading their bytes; no device has confirmed it. The answers that acceptance "
            "was measured on are the target's own; other pairs and weights are taken to have the "
            "same acceptance.",
        ),
    )


def _measured(
    material: Material, keep_ratio: float, gamma: int, report: Callable[[str], None], once: Once
) -> tuple[float, tuple[int, int]]:
    """Acceptance, and the size of the frames as the model sees them."""
    accepted = judged = 0
    setting, size = Setting("holistic", keep_ratio), (0, 0)
    for number, (read, rows) in enumerate(material.batches(), 1):
        count = partial(_count, material.pair, read, rows, setting, gamma)
        more, of, high, wide = once(f"batch {number}", count)
        accepted, judged, size = accepted + more, judged + of, (high, wide)
    if not judged:
        raise HippoError("the answers ended before the draft was heard: no acceptance to measure")
    report("acceptance measured")
    return accepted / judged, size


def _count(
    pair: Any, read: Callable[[], ModelInputs], rows: int, setting: Setting, gamma: int
) -> list[int]:
    """Accepted and judged tokens of a batch's first ``rows`` rows, height and width of a frame."""
    inputs = read()
    own = generate(pair.target, inputs, max_new_tokens=NEW_TOKENS)
    found = setting.decode(pair, inputs, gamma, "parallel")
    own, found = jax.device_get((own, found))
    check_same(own, found, f"keep ratio {setting.keep_ratio:g}, parallel")
    counted = (found.stats.accepted, found.stats.judged)
    return [*(int(each[:rows].sum()) for each in counted), *_frame(pair.target.config, inputs)]


def _frame(config: VideoLMConfig, inputs: ModelInputs) -> tuple[int, int]:
    """Height and width in pixels of the first frame, as the model sees it."""
    vision = config.vision
    square = getattr(vision, "image_size", None)  # families that make every frame one size
    if square is not None:
        return square, square
    side = vision.patch_size * vision.merge_size
    high, wide = (int(np.asarray(getattr(inputs.table, n))[0]) for n in ("height", "width"))
    return high * side, wide * side


def _candidates(
    material: Material, sizes: Sequence[int] | None, keep_ratio: float, size: tuple[int, int]
) -> Iterator[tuple[Candidate, Sequence[int]]]:
    """Pairs to plan and the memories to plan them for."""
    pair, embedded = material.pair, material.name == EMBEDDED_PAIR
    one = Candidate(
        material.name, pair.target.config, pair.draft.config, "float32", size, keep_ratio
    )
    own = sizes or SIZES
    if embedded and sizes is None:
        weights = _weights(one)
        own = [int(multiple * weights) for multiple in MULTIPLES]
    for kind in KINDS:
        yield replace(one, kind=kind), own
    if not embedded:
        return
    for target, draft in PUBLISHED:
        configs = published_config(target), published_config(draft)
        name = f"{target} + {draft.removeprefix(target.rpartition('-')[0] + '-')}"
        for kind in SMALL:
            yield Candidate(name, *configs, kind, (448, 448), keep_ratio), sizes or SIZES


def _weights(candidate: Candidate) -> int:
    return sum(role.weights for role in candidate.plan(1, None).roles)


def _row(candidate: Candidate, memory: int, acceptance: float) -> dict[str, Any]:
    frames, limit = candidate.longest(memory)
    found: dict[str, Any] = {
        "pair": candidate.name,
        "weights": candidate.kind,
        "memory_bytes": memory,
        "weights_gib": _weights(candidate) / 2**30,
        "modelled_frames": frames,
        "limited_by": limit,
        "modelled_visual_tokens": 0,
        "modelled_frames_alone": candidate.longest(memory, draft=False)[0],
        "modelled_gamma": "",
        "modelled_speedup": "",
    }
    if frames:
        times = candidate.step_times(frames)
        choice = best(times, acceptance, GAMMAS, concurrent=False, schedules=("sequential",))
        found["modelled_visual_tokens"] = candidate.plan(frames, None).visual_tokens
        found["modelled_gamma"] = choice.gamma
        found["modelled_speedup"] = times.verify_time(1) / choice.seconds_per_token
    return found


def _panels(rows: Sequence[Mapping[str, Any]]) -> Iterator[Lines]:
    """Length and speed by memory: pairs that were planned for the same sizes share panels."""
    sizes_of: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        sizes_of.setdefault((str(row["pair"]), str(row["weights"])), []).append(row)
    groups: dict[tuple[tuple[str, ...], str], dict[str, list[Mapping[str, Any]]]] = {}
    for (pair, weights), own in sizes_of.items():
        sizes = tuple(size_text(row["memory_bytes"]) for row in own)
        # The first pair's kinds of weights side by side, then the published pairs kind by kind.
        first = pair == rows[0]["pair"]
        name, said = (weights, pair) if first else (pair, weights)
        groups.setdefault((sizes, said), {})[name] = own
    parts = {
        "modelled_frames": "longest video that fits, frames (modelled; no point: it does not fit)",
        "modelled_speedup": "decoding at that length, times the target alone (modelled)",
    }
    for (sizes, said), group in groups.items():
        for key, heading in parts.items():
            series = {name: [point(row[key]) for row in own] for name, own in group.items()}
            heading = f"{said}: {heading}"
            yield Lines(heading, "memory of the device", sizes, series, powers="frames" in key)
