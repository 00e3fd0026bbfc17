"""``ModelInputs``: everything a model is fed, as one pytree of fixed-size arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.buckets import bucket
from hippo_jax.inputs.protocol import MediaTokens


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VisualTable:
    """Where every visual token comes from and stands; int32 ``[N]`` each, N bucketed.

    Attributes:
        row: batch row.
        slot: column of the (right-padded) prompt.
        video: number of the video within its row, -1 for an image.
        frame, y, x: temporal unit, row and column in the merged grid.
        frames, height, width: size of that grid.
        valid: false for bucket padding.

    Tokens of one video or image are neighbours in the table, in the order frame, y, x; rows follow
    each other.
    """

    row: Any
    slot: Any
    video: Any
    frame: Any
    y: Any
    x: Any
    frames: Any
    height: Any
    width: Any
    valid: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VisionInputs:
    """Pixels and the vision towers' index arrays.

    Attributes:
        pixels: float32 ``[P, patch_dim]``, flattened patches of all videos and images in the order
            of the prompts, then padding up to a bucket.
        layout: the target's (or the only model's) index arrays, a pytree made by its family.
        draft_layout: the draft's where its tower needs others, else ``None``.
    """

    pixels: Any
    layout: Any
    draft_layout: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ModelInputs:
    """A batch of prompts, right-padded to a bucket of T columns.

    Attributes:
        token_ids: int32 ``[B, T]``.
        lengths: int32 ``[B]``, each row's own tokens.
        positions: int32 ``[3, B, T]``, rotary positions (t, h, w).
        next_position: int32 ``[B]``, rotary position of the first generated token.
        visual_index: int32 ``[B, T]``, row of the vision tower's output that stands there, or -1.
            Rows below the table's size are scored tokens, those from there on extra rows
            (``inputs.protocol.MediaTokens``).
        table: one line a visual token.
        text_columns: int32 ``[B, X]``, columns of all but the scored visual tokens, -1 behind them.
            They are never pruned.
        query_columns: int32 ``[B, R]``, columns of the text after the last visual token (of the
            last token alone where there is none), -1 behind them.
        vision: pixels and index arrays, ``None`` for text only.
        left_padding: int32 ``[B]``, pad columns that stood in front of each row as given.
        width: int32, columns of the ids as given.
    """

    token_ids: Any
    lengths: Any
    positions: Any
    next_position: Any
    visual_index: Any
    table: VisualTable
    text_columns: Any
    query_columns: Any
    vision: VisionInputs | None
    left_padding: Any
    width: Any

    @classmethod
    def from_hf(cls, model_or_pair: Any, mapping: Mapping[str, Any]) -> ModelInputs:
        """From the arrays of a Hugging Face processor, under its own keys.

        ``input_ids`` and ``attention_mask`` ``[B, T]`` (padded left or right), and the pixels under
        the keys that the family's processor gives them (Qwen2.5-VL: ``pixel_values_videos`` with
        ``video_grid_thw`` and ``second_per_grid_ts``, ``pixel_values`` with ``image_grid_thw``; a
        missing ``second_per_grid_ts`` is 1). ``mm_token_type_ids`` is not needed. Raises
        ``HippoError`` where they do not fit each other.
        """
        from hippo_jax.inputs.prepare import rows_from_hf, target_and_draft

        model, draft = target_and_draft(model_or_pair)
        rows, padding, width = rows_from_hf(model, mapping)
        return assemble(model, rows, draft=draft, left_padding=padding, width=width)

    @property
    def batch(self) -> int:
        """Rows."""
        return self.token_ids.shape[0]

    @property
    def visual_tokens(self) -> np.ndarray:
        """Visual tokens of each row, int ``[B]`` (host)."""
        rows = np.asarray(self.table.row)[np.asarray(self.table.valid)]
        return np.bincount(rows, minlength=self.batch)


@dataclass(frozen=True)
class Media:
    """One preprocessed video or image of a prompt.

    Attributes:
        kind: ``"video"`` or ``"image"``.
        pixels: float32 ``[t * h * w, patch_dim]``, rows in the order of the family.
        grid: (t, h, w) in patches.
        seconds_per_grid: seconds from one temporal unit to the next.
        timestamps: seconds of each of the t units, where the family's prompt names them.
    """

    kind: str
    pixels: np.ndarray
    grid: tuple[int, int, int]
    seconds_per_grid: float = 1.0
    timestamps: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """One prompt: ids with expanded placeholders, and its videos and images in order."""

    ids: np.ndarray
    media: Sequence[Media] = ()


class HostModel(Protocol):
    config: Any

    @property
    def family(self) -> Any: ...


def assemble(
    model: HostModel,
    rows: Sequence[Row],
    *,
    draft: HostModel | None = None,
    left_padding: Sequence[int] | None = None,
    width: int | None = None,
) -> ModelInputs:
    """Build the batch: positions, index arrays and padding, all in numpy.

    Raises:
        HippoError: no rows, an empty row, ids outside the vocabulary, a prompt longer than the
            model allows, or placeholders that do not fit the videos.
    """
    config, family = model.config, model.family
    if not rows:
        raise HippoError("no prompts given; give at least one row")
    for row in rows:
        _check_row(config, row)
    longest = max(len(row.ids) for row in rows)
    columns = bucket(longest, 32)
    batch = len(rows)
    token_ids = np.full((batch, columns), config.pad_token_id, np.int32)
    positions = np.zeros((3, batch, columns), np.int32)
    next_position = np.zeros(batch, np.int32)
    visual_index = np.full((batch, columns), -1, np.int32)
    lines: list[np.ndarray] = []
    text: list[np.ndarray] = []
    queries: list[np.ndarray] = []
    given = [[family.media_tokens(config, item) for item in row.media] for row in rows]
    total = sum(math.prod(item.grid) for own in given for item in own)
    size = bucket(total, 64) if total else 0
    seen = 0
    for b, (row, own) in enumerate(zip(rows, given, strict=True)):
        length = len(row.ids)
        token_ids[b, :length] = row.ids
        media = [(m.kind, m.grid, m.seconds_per_grid) for m in row.media]
        positions[:, b, :length], next_position[b] = family.rope_positions(config, row.ids, media)
        slots = np.flatnonzero(np.isin(row.ids, (config.video_token_id, config.image_token_id)))
        if len(slots) != sum(item.count for item in own):
            raise HippoError(
                f"the prompt has {len(slots)} visual placeholders, its videos and images have "
                f"{sum(item.count for item in own)} tokens; processor and model do not belong "
                "together"
            )
        at = video = 0
        for item, tokens in zip(row.media, own, strict=True):
            places = slots[at : at + tokens.count]
            visual_index[b, places] = tokens.rows(seen, size)
            scored = places[visual_index[b, places] < size]
            lines.append(_table_lines(b, scored, tokens, video if item.kind == "video" else -1))
            video += item.kind == "video"
            at += tokens.count
            seen += len(scored)
        pruned = (visual_index[b, :length] >= 0) & (visual_index[b, :length] < size)
        text.append(np.flatnonzero(~pruned))
        # A row without visual tokens has nothing to be asked about: its last token stands in.
        after = np.arange(slots[-1] + 1, length) if len(slots) else np.arange(0)
        queries.append(after if len(after) else np.array([length - 1]))
    table = _table(lines, size)
    return ModelInputs(
        token_ids=token_ids,
        lengths=np.array([len(row.ids) for row in rows], np.int32),
        positions=positions,
        next_position=next_position,
        visual_index=visual_index,
        table=table,
        text_columns=_columns(text),
        query_columns=_columns(queries),
        vision=_vision(model, draft, rows, size),
        left_padding=np.asarray(left_padding or [0] * batch, np.int32),
        width=np.int32(longest if width is None else width),
    )


def _check_row(config: Any, row: Row) -> None:
    if len(row.ids) == 0:
        raise HippoError("a prompt is empty; give at least one token")
    if row.ids.min() < 0 or row.ids.max() >= config.text.vocab_size:
        raise HippoError(
            f"the prompt holds tokens from {int(row.ids.min())} to {int(row.ids.max())}, but the "
            f"model knows {config.text.vocab_size} tokens; tokenizer and model do not belong "
            "together"
        )
    if len(row.ids) > config.text.max_positions:
        raise HippoError(
            f"the prompt has {len(row.ids)} tokens, the model allows {config.text.max_positions}; "
            "use a shorter prompt, fewer frames or a smaller max_pixels"
        )


def _table_lines(row: int, slots: np.ndarray, tokens: MediaTokens, number: int) -> np.ndarray:
    """Lines ``[n, 9]`` (row, slot, video, frame, y, x, frames, height, width) of the scored tokens
    of one medium, which stand at columns ``slots``."""
    grid = np.indices(tokens.grid).reshape(3, -1)
    head = np.stack([np.full(grid.shape[1], row), slots, np.full(grid.shape[1], number)])
    sizes = np.broadcast_to(np.array(tokens.grid)[:, None], grid.shape)
    return np.concatenate([head, grid, sizes]).T


def _table(lines: list[np.ndarray], size: int) -> VisualTable:
    padded = np.zeros((size, 9), np.int32)
    count = sum(len(part) for part in lines)
    if count:
        padded[:count] = np.concatenate(lines)
    columns = ("row", "slot", "video", "frame", "y", "x", "frames", "height", "width")
    named = dict(zip(columns, padded.T.copy(), strict=True))
    return VisualTable(**named, valid=np.arange(size) < count)


def _columns(rows: list[np.ndarray]) -> np.ndarray:
    padded = np.full((len(rows), bucket(max(map(len, rows)), 32)), -1, np.int32)
    for line, columns in zip(padded, rows, strict=True):
        line[: len(columns)] = columns
    return padded


def _vision(
    model: HostModel, draft: HostModel | None, rows: Sequence[Row], tokens: int
) -> VisionInputs | None:
    media = [item for row in rows for item in row.media]
    if not media:
        return None
    other = None if draft is None else draft.config.vision
    found: VisionInputs = model.family.vision_inputs(model.config.vision, media, tokens, other)
    return found
