"""What the benchmark decodes: a pair, prompts, and how long the answers are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from hippo_jax.architectures.parameters import count, values, with_values
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.recording import read_recording
from hippo_jax.benchmark.script import Script, ScriptedVideoLM, typical_stretch, write_script
from hippo_jax.benchmark.shapes import (
    ORDINARY,
    draft_shape,
    random_row,
    random_video_lm,
    shape_config,
)
from hippo_jax.errors import HippoError
from hippo_jax.inputs.compatibility import check_configs
from hippo_jax.inputs.model_inputs import ModelInputs, Row, assemble
from hippo_jax.inputs.prepare import prepare_rows
from hippo_jax.placement.pair import ModelPair, load_pair
from hippo_jax.resources import clip, clip_names
from hippo_jax.weights.host import default_device, default_dtype, parse_dtype

PROMPT = "Describe the video."


@dataclass(frozen=True)
class Case:
    """What is decoded, greedily.

    Attributes:
        name: of the pair, or of the two shapes.
        pair: on one device.
        rows: prompts, each decoded alone.
        new_tokens: at most so many; exactly so many with a script.
        script: what random weights are made to say, ``None`` for weights that speak for themselves.
        acceptance: where the draft's luck comes from, in words.
    """

    name: str
    pair: ModelPair
    rows: tuple[Row, ...]
    new_tokens: int
    script: Script | None
    acceptance: str

    @property
    def end_tokens(self) -> tuple[int, ...] | None:
        """As ``eos_token_ids`` of ``generate``: a script has no end of its own."""
        return None if self.script is None else ()

    def prompts(self) -> list[ModelInputs]:
        """On the device."""
        target, draft = self.pair.target, self.pair.draft
        return [jax.device_put(assemble(target, [row], draft=draft)) for row in self.rows]

    def about(self) -> dict[str, Any]:
        """For the outcome."""
        return {
            "name": self.name,
            "parameters": {"target": count(self.pair.target), "draft": count(self.pair.draft)},
            "dtype": jax.numpy.dtype(self.pair.target.dtype).name,
            "attention": self.pair.target.attention,
            "prompts": len(self.rows),
            "prompt_tokens": max(len(row.ids) for row in self.rows),
            "max_new_tokens": self.new_tokens,
            "acceptance_from": self.acceptance,
        }


def pair_case(name: str, new_tokens: int, dtype: Any = None) -> Case:
    """A pair of the zoo on the clips that come with it.

    Raises:
        HippoError: an unknown pair.
    """
    pair = load_pair(name, dtype=dtype)
    rows = tuple(
        row
        for one in clip_names(name)
        for row in prepare_rows(pair.target, clip(one, name), PROMPT)
    )
    if not rows:
        raise HippoError(f"the pair {name!r} has no clips to decode")
    return Case(name, pair, rows, new_tokens, None, "measured")


def shape_case(
    target: str,
    draft: str | None,
    new_tokens: int,
    *,
    recording: str,
    frames: int,
    size: tuple[int, int],
    dtype: Any = None,
) -> Case:
    """Random weights in the shape of two configs, with the acceptance of a real pair replayed.

    Args:
        target, draft: of ``shapes.shape_config``; no draft: the family's smallest.
        recording: the pair whose acceptance is replayed.
        frames, size: of the random video.
        dtype: of the weights; ``None``: the device's default.

    Raises:
        HippoError: unknown shapes, two that cannot be a pair, a video too long.
    """
    draft = draft_shape(target) if draft is None else draft
    configs = shape_config(target), shape_config(draft)
    check_configs(*configs, family_of(configs[0].family).shared)
    row = random_row(configs[0], frames, size)
    limit = configs[0].text.max_positions
    if len(row.ids) + new_tokens > limit:
        raise HippoError(
            f"{len(row.ids)} prompt tokens and {new_tokens} new ones exceed the {limit} that "
            f"{target} allows"
        )
    kept = read_recording(recording)
    accepted = typical_stretch(kept.answers, new_tokens)
    dtype = default_dtype(default_device()) if dtype is None else parse_dtype(dtype)
    length = len(row.ids) + new_tokens  # positions are never above the number of tokens
    models = [
        random_video_lm(config, seed, dtype, partial(ScriptedVideoLM, places=length))
        for seed, config in enumerate(configs)
    ]
    first = int(assemble(models[0], [row]).next_position[0])
    script = write_script(accepted, first, ORDINARY)
    pair = ModelPair(scripted(models[0], script.target), scripted(models[1], script.draft))
    words = (
        f"replayed: {100 * sum(accepted) / len(accepted):.1f} % of {new_tokens} tokens right, as "
        f"in {recording}'s recording ({100 * kept.rate:.1f} % of {kept.places} tokens, keep ratio "
        f"{kept.keep_ratio:g})"
    )
    return Case(f"{target} with {draft}", pair, (row,), new_tokens, script, words)


def scripted(model: VideoLM, says: Any) -> Any:
    """The model with its script filled in, from the front."""
    found = values(model)
    places = found["script"]
    return with_values(model, {**found, "script": places.at[: len(says)].set(says)})
