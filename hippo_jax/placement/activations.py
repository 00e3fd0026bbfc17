"""What a program holds at its widest moment besides weights, caches and inputs.

Formulas over the sizes of a call, in bytes on one device. They follow the code: each stage below is
a moment at which the arrays named there are alive together, and the widest stage counts. Arrays
that XLA fuses away (norms, rotations, masks) are left out, as are those that end up in the caches.

They were compared with XLA's analysis of CPU programs in float32 whose operations are ordered for
the least memory (``tests/placement/test_plan_memory.py``): all in all within 10 %, activations
within 15 %; up to 19 % (35 %) too low for short videos on several devices. Other backends were not
measured. By default XLA's CPU compiler orders for speed, which took 1.4 and 1.8 times the
activations in the two programs looked at. The workspace of libraries and what an allocator cannot
use are not in here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hippo_jax.architectures.attention import (
    CPU_SCORE_BYTES,
    MAX_CAUSAL_SEGMENTS,
    MIN_CAUSAL_SEGMENT,
    SCORE_BYTES,
)
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.sharding import split_axes
from hippo_jax.architectures.tower_load import TowerLoad
from hippo_jax.placement.memory import kv_heads

FLOAT32 = 4


@dataclass(frozen=True)
class Sizes:
    """One model on one of the devices that share it, and what it is fed.

    Attributes:
        devices: how many share the model.
        itemsize: bytes of a number of its weights, which its activations share.
        batch: rows.
        prompt: tokens of the padded prompt that this model reads.
        visual: lines of the table of visual tokens, 0 for text alone.
        asked: tokens of the text behind the video, whose attention scores the visual tokens.
        tower: what its vision tower holds, ``None`` for text alone.
        score_bytes: bound of one block of attention scores, see ``architectures.attention``.
        in_turn: whether heads go one after the other where that bound is met (on a CPU).
    """

    config: VideoLMConfig
    devices: int
    itemsize: int
    batch: int
    prompt: int
    visual: int
    asked: int
    tower: TowerLoad | None
    score_bytes: int
    in_turn: bool

    def parts(self, axis: str) -> int:
        """Into how many parts a logical axis is split."""
        return self.devices if axis in split_axes(self.config, self.devices) else 1


def score_bound(platform: str) -> int:
    """The bound of a block of scores on a platform (``"cpu"``, ``"gpu"``, ``"tpu"``)."""
    return CPU_SCORE_BYTES if platform == "cpu" else SCORE_BYTES


def visual_bytes(sizes: Sizes) -> int:
    """What the tower gives: ``[N, (1 + k) D]``."""
    deep = len(getattr(sizes.config.vision, "deepstack_layers", ()))
    return sizes.visual * (1 + deep) * sizes.config.text.hidden_size * sizes.itemsize


@dataclass(frozen=True)
class TowerStages:
    """The moments of a vision tower, R rows of width E.

    Attributes:
        embed: pixels in the tower's dtype, embedded patches and their sum with places.
        residual: ``[R, E]``.
        attention: beside scores: residual, values and result; where a loop goes over the segments
            also queries and keys, and the zeros that the loop begins with.
        scores: before and behind the mask, of all segments where they go through together.
        block: the same of one step of a loop over the segments, with the segments it is at.
        mlp: ``[R, F]`` twice: gate and up, or before and behind the activation. (Biased, as they
            are in towers, their product takes the place of one of them.)
        behind: merging or projection, as the family says.
        kept: the result ``[N, (1 + k) D]``, and pixels copied to whole frames.
        chunked: all this is inside a loop.
    """

    embed: int = 0
    residual: int = 0
    attention: int = 0
    scores: int = 0
    block: int = 0
    mlp: int = 0
    behind: int = 0
    kept: int = 0
    chunked: bool = False

    @property
    def peak(self) -> int:
        """The widest."""
        attention = self.attention + self.scores + self.block
        mlp = self.residual + self.mlp
        return max(self.embed, attention, mlp, self.behind) + self.kept


def both_towers(first: TowerStages, second: TowerStages, *, split: bool) -> int:
    """The widest moment of two towers in one program. Nothing makes one wait for the other, so the
    compiler takes their layers by turns. Loops never run at once, and the scores of towers that are
    ``split`` over devices mostly do not: sums over the devices keep them in order."""
    if first.chunked or second.chunked:
        return max(first.peak + second.kept, second.peak + first.kept)
    straight, block = (first.scores, second.scores), max(first.block, second.block)
    scores = max(*straight, block) if split else sum(straight) + block
    attention = first.attention + second.attention + scores
    mlp = sum(stage.residual + stage.mlp for stage in (first, second))
    alone = max(
        first.peak + second.residual - first.kept, second.peak + first.residual - second.kept
    )
    return max(attention, mlp, alone) + first.kept + second.kept


def tower_stages(sizes: Sizes) -> TowerStages:
    """What a model's tower holds; nothing for text alone."""
    load, vision, item = sizes.tower, sizes.config.vision, sizes.itemsize
    if load is None:
        return TowerStages()
    residual = load.rows * vision.hidden_size * item
    heads = vision.num_heads // sizes.parts("vision_heads")
    own = residual * heads // vision.num_heads
    scores, block = max(
        (_segment_scores(sizes, heads, own, group) for group in load.groups), key=sum
    )
    cast = 0 if item == FLOAT32 else load.rows * vision.patch_dim * item
    return TowerStages(
        embed=cast + 2 * residual,
        residual=residual,
        attention=residual + (5 if block else 2) * own,
        scores=scores,
        block=block,
        mlp=2 * load.rows * vision.intermediate_size * item // sizes.parts("vision_mlp"),
        behind=load.behind * item,
        kept=load.copied * FLOAT32 + visual_bytes(sizes),
        chunked=load.chunked,
    )


def _segment_scores(sizes: Sizes, heads: int, own: int, group: tuple[int, int]) -> tuple[int, int]:
    """``TowerStages.scores`` and ``block`` of one group of segments; one of them is 0."""
    (count, size), bound = group, sizes.score_bytes
    together = bound // (FLOAT32 * heads * size * size)
    if 2 * together > count:  # a loop of one step is none
        return 2 * FLOAT32 * heads * size * size * count, 0
    if together:
        block = together * FLOAT32 * heads * size * size
    else:
        block = _block(size, FLOAT32 * (1 if sizes.in_turn else heads) * size, bound)
    return 0, 2 * block + own * max(1, together) // count


def _block(length: int, row: int, bound: int) -> int:
    """Bytes of one of the even blocks that ``length`` rows of ``row`` bytes are cut into."""
    blocks = math.ceil(length / max(8, bound // row))
    return math.ceil(length / blocks) * row


def prefill_bytes(sizes: Sizes) -> int:
    """The decoder's layers over a prompt of T tokens, without the keys and values of finished
    layers, which become the cache:

    - embedding: token rows, visual rows in their places, and their sum ``[T, D]``;
    - attention: residual, queries and result ``[T, N, H]`` (before loops their padded copies), the
      keys and values of each causal segment cut out, and scores;
    - MLP: residual, and gate, up and product ``[T, F]``.

    Or the logits of one token, float32 ``[B, V]``, which come when all this is gone. With it lie
    rotary tables and the zeros that loops begin with.
    """
    text, item = sizes.config.text, sizes.itemsize
    tokens = sizes.batch * sizes.prompt
    residual = tokens * text.hidden_size * item
    queries, attention = _query_bytes(sizes), _causal(sizes)
    looped = round(attention.looped * queries)
    keys = tokens * kv_heads(sizes.config, sizes.devices) * text.head_dim * item
    cut = round(2 * attention.cut * keys)
    mlp = tokens * text.intermediate_size * item // sizes.parts("mlp")
    stages = (
        3 * residual,
        residual + queries + 2 * looped + cut,
        residual + 2 * queries + cut + attention.scores,
        residual + 3 * mlp,
        logit_bytes(sizes, 1),
    )
    return looped + 2 * tokens * (text.head_dim // 2) * FLOAT32 + max(stages)


def loop_zeros(sizes: Sizes) -> int:
    """What the loops of a prefill begin with. It is made when a program starts, so that it lies
    beside the tower too, twice."""
    return 2 * round(_causal(sizes).looped * _query_bytes(sizes))


def _query_bytes(sizes: Sizes) -> int:
    """Queries ``[T, N, H]`` of this device."""
    text = sizes.config.text
    heads = text.num_heads // sizes.parts("q_heads")
    return sizes.batch * sizes.prompt * heads * text.head_dim * sizes.itemsize


@dataclass(frozen=True)
class _Causal:
    """Of causal attention over a prompt: bytes of scores alive at once, the share of the rows that
    loops go over, and how often the prompt's keys are cut out for segments."""

    scores: int
    looped: float
    cut: float


def _causal(sizes: Sizes) -> _Causal:
    """As ``causal_attention`` cuts it. Segments that need no loop may all be computed at once,
    their scores before and behind the mask; beside a loop the first of them is that far and the
    others wait. A loop holds one block, twice."""
    heads = sizes.config.text.num_heads // sizes.parts("q_heads")
    tokens, batch, bound = sizes.prompt, sizes.batch, sizes.score_bytes
    in_turn = kv_heads(sizes.config, sizes.devices) if sizes.in_turn else 1
    segments = max(1, min(MAX_CAUSAL_SEGMENTS, tokens // MIN_CAUSAL_SEGMENT))
    length = math.ceil(tokens / segments)
    waiting: list[int] = []
    block = looped = cut = 0
    for start in range(0, tokens, length):
        end = min(tokens, start + length)
        row, rows = FLOAT32 * batch * heads * end, end - start
        if rows * row > bound:
            looped += rows
            block = max(block, _block(rows, row // in_turn, bound))
        else:
            waiting.append(rows * row)
        cut += end if end < tokens else 0
    again = waiting[:1] if looped else waiting
    return _Causal(sum(waiting) + sum(again) + 2 * block, looped / tokens, cut / tokens)


def logit_bytes(sizes: Sizes, width: int) -> int:
    """Logits float32 ``[B, W, V]``, the share of this device and all of them."""
    share = FLOAT32 * sizes.batch * width * sizes.config.text.vocab_size
    return share + share // sizes.parts("vocab") if sizes.parts("vocab") > 1 else share


def choosing_bytes(sizes: Sizes) -> int:
    """What choosing visual tokens adds to a prefill: scores of the text's attention in one layer,
    before and behind the mask, and unit vectors float32 ``[N, D]``."""
    heads = sizes.config.text.num_heads // sizes.parts("q_heads")
    row = FLOAT32 * sizes.batch * heads * sizes.prompt
    return (
        2 * _block(sizes.asked, row, sizes.score_bytes)
        + sizes.visual * sizes.config.text.hidden_size * FLOAT32
    )


def round_bytes(sizes: Sizes, width: int, slots: int) -> int:
    """A pass of ``width`` tokens over a cache of ``slots``: scores float32 before and behind the
    softmax in one layer; logits."""
    text = sizes.config.text
    heads = text.num_heads // sizes.parts("q_heads")
    scores = 2 * FLOAT32 * sizes.batch * heads * width * slots
    mlp = 3 * sizes.batch * width * text.intermediate_size * sizes.itemsize // sizes.parts("mlp")
    return max(scores, mlp, 2 * logit_bytes(sizes, width))


def input_bytes(sizes: Sizes) -> int:
    """Prompts, the table of visual tokens, pixels and index arrays, the same on every device."""
    # Ids, three axes of positions, visual rows; columns of text and of queries; the table's lines.
    numbers = sizes.batch * (5 * sizes.prompt + 2 * 32) + 9 * sizes.visual
    found = np.dtype(np.int32).itemsize * numbers + sizes.visual
    if sizes.tower is not None:
        pixels = sizes.tower.pixels * sizes.config.vision.patch_dim
        found += pixels * FLOAT32 + sizes.tower.index_bytes
    return found
