"""A text that random models are made to say, so that a recorded acceptance can be replayed.

A target and a draft with random weights agree on nothing, so speculation between them says nothing
about time. Where the draft is right is known from a real pair; whose weights a step multiplies by
does not change how long it takes. So both models compute all they would compute, and in the end
their logits are made to prefer a prescribed token: the target's is the text, the draft's is the
text too where the recording says that the draft was right, and another token where it was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.cache import PartialPrefill
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs

PREFERRED = 1e9  # above any logit


@dataclass(frozen=True)
class Script:
    """What both models say.

    Attributes:
        target, draft: int32 ``[P]``; entry p is the token that follows an input token at rotary
            position p (text has one position for all three axes).
    """

    target: np.ndarray
    draft: np.ndarray


def write_script(
    accepted: Sequence[bool], next_position: int, vocabulary: int, seed: int = 0
) -> Script:
    """A random text of ids below ``vocabulary``, and where the draft gets it wrong.

    Args:
        accepted: whether the draft proposes the text's token at each place of the answer.
        next_position: rotary position of the answer's first token.
    """
    length = next_position + len(accepted)
    target = np.random.default_rng(seed).integers(0, vocabulary, length).astype(np.int32)
    draft = target.copy()
    wrong = next_position - 1 + np.flatnonzero(~np.asarray(accepted, bool))
    draft[wrong] = (draft[wrong] + 1) % vocabulary
    return Script(target, draft)


def typical_stretch(answers: Sequence[Sequence[bool]], length: int) -> tuple[bool, ...]:
    """Of all ``answers``, one behind the other, the first ``length`` places that have as many
    right ones as all of them on average, or come nearest to it.

    Raises:
        HippoError: fewer places were recorded.
    """
    whole = np.array([right for answer in answers for right in answer], float)
    if not 1 <= length <= len(whole):
        raise HippoError(f"the recording has {len(whole)} places, {length} were asked for")
    sums = np.convolve(whole, np.ones(length), "valid")
    best = int(np.argmin(np.abs(sums - length * whole.mean())))
    return tuple(bool(right) for right in whole[best : best + length])


class ScriptedVideoLM(VideoLM):
    """A video-LLM that computes its logits and then prefers the token of its script."""

    def __init__(self, config: VideoLMConfig, places: int, *, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs=rngs)
        self.script = nnx.Param(jnp.zeros((places,), jnp.int32), axes=(None,))

    def forward_block(
        self, token_ids: jax.Array, positions: jax.Array, *arguments: Any, **keywords: Any
    ) -> tuple[jax.Array, Any]:
        """As ``VideoLM.forward_block``."""
        logits, blocks = super().forward_block(token_ids, positions, *arguments, **keywords)
        return self._say(logits, positions[0]), blocks

    def end_prefill(
        self, inputs: ModelInputs, begun: PartialPrefill, capacity: int
    ) -> tuple[jax.Array, kv.KVCache]:
        """As ``VideoLM.end_prefill``."""
        logits, cache = super().end_prefill(inputs, begun, capacity)
        return self._say(logits, jnp.asarray(inputs.next_position) - 1), cache

    def _say(self, logits: jax.Array, positions: jax.Array) -> jax.Array:
        script = self.script[...]
        token = script[jnp.clip(positions, 0, script.shape[0] - 1)]
        preferred = jnp.arange(logits.shape[-1]) == token[..., None]
        return jnp.where(preferred, PREFERRED, logits)
