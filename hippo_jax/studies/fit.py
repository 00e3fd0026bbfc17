"""How long a video fits a device with a pair, and what a decoding step reads there: from sizes
alone."""

from __future__ import annotations

from dataclasses import dataclass

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.benchmark.acceptance import NEW_TOKENS
from hippo_jax.errors import HippoError
from hippo_jax.placement.call_sizes import Call
from hippo_jax.placement.memory import Memory
from hippo_jax.placement.plan_memory import MemoryPlan, plan_memory
from hippo_jax.scheduling.time_model import StepTimes
from hippo_jax.weights.host import parse_dtype

# How weights are kept: their dtype, and whether kernels are int8.
KINDS = {
    "float32": ("float32", None),
    "bfloat16": ("bfloat16", None),
    "bfloat16, int8 kernels": ("bfloat16", "int8"),
}
GAMMAS = range(1, 17)
MOST_FRAMES = 2**20


@dataclass(frozen=True)
class Candidate:
    """A pair that may or may not fit.

    Attributes:
        kind: one of ``KINDS``.
        size: of a frame in pixels, as the model sees it.
    """

    name: str
    target: VideoLMConfig
    draft: VideoLMConfig
    kind: str
    size: tuple[int, int]
    keep_ratio: float

    def plan(self, frames: int, memory: int | None, draft: bool = True) -> MemoryPlan:
        """Of one row on one device."""
        dtype, quantize = KINDS[self.kind]
        return plan_memory(
            self.target,
            self.draft if draft else None,
            call=Call(frames=frames, size=self.size, max_new_tokens=NEW_TOKENS),
            dtype=dtype,
            quantize_target=quantize,
            quantize_draft=quantize,
            keep_ratio=self.keep_ratio,
            gamma=max(GAMMAS),
            memory=None if memory is None else Memory(memory),
        )

    def longest(self, memory: int, draft: bool = True) -> tuple[int, str]:
        """Frames of the longest video that fits, 0 if none does, and what forbids one more frame:
        the memory, or the prompt that the model allows."""

        def fits(frames: int) -> str | None:
            try:
                plan = self.plan(frames, memory, draft)
            except HippoError:
                return "the model"
            return "memory" if plan.verdict == "does not fit" else None

        low, high = 0, 1
        while high < MOST_FRAMES and fits(high) is None:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) is None else (low, middle)
        return low, fits(high) or "the model"

    def step_times(self, frames: int) -> StepTimes:
        """Decoding steps that wait for memory alone: bytes read, in place of seconds.

        A forward reads the decoder's weights and the cache once, however many tokens it is over
        (to divide by a bandwidth would change no ratio).
        """
        plan = self.plan(frames, None)
        target, draft = (
            float(decoder_bytes(config, self.kind) + role.cache)
            for config, role in zip((self.target, self.draft), plan.roles, strict=True)
        )
        return StepTimes(draft_step=draft, verify={1: target})


def decoder_bytes(config: VideoLMConfig, kind: str) -> int:
    """Bytes of weights that a decoding step reads: the matrices of the decoder's layers, which may
    be int8, and the head, which never is; neither the vision tower nor the table of embeddings."""
    text = config.text
    own, shared = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    layer = text.hidden_size * (2 * own + 2 * shared + 3 * text.intermediate_size)
    dtype, quantize = KINDS[kind]
    item = parse_dtype(dtype).itemsize
    in_layers = 1 if quantize else item
    return text.num_layers * layer * in_layers + text.vocab_size * text.hidden_size * item
