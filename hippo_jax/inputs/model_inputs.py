"""``ModelInputs``: everything a model is fed, as one pytree of fixed-size arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.buckets import bucket


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
        pixels: float32 ``[P, patch_dim]``, flattened patches of all videos and images.
        layout: the target's (or the only model's) index arrays, made by its family.
        draft_layout: the draft's where its tower cuts windows otherwise, else ``None``.
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
        visual_index: int32 ``[B, T]``, row of the visual tokens that stands there, or -1.
        table: one line a visual token.
        text_columns: int32 ``[B, X]``, columns of the tokens that are not visual, -1 behind them.
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

        ``input_ids`` and ``attention_mask`` ``[B, T]`` (padded left or right),
        ``pixel_values_videos`` with ``video_grid_thw`` and ``second_per_grid_ts``,
        ``pixel_values`` with ``image_grid_thw``. A missing ``second_per_grid_ts`` is 1;
        ``mm_token_type_ids`` is not needed. Raises ``HippoError`` where they do not fit each other.
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
        pixels: float32 ``[t * h * w, patch_dim]``.
        grid: (t, h, w) in patches.
        seconds_per_grid: seconds from one temporal unit to the next.
    """

    kind: str
    pixels: np.ndarray
    grid: tuple[int, int, int]
    seconds_per_grid: float = 1.0


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
    seen = 0
    for b, row in enumerate(rows):
        length = len(row.ids)
        token_ids[b, :length] = row.ids
        media = [(m.kind, m.grid, m.seconds_per_grid) for m in row.media]
        positions[:, b, :length], next_position[b] = family.rope_positions(config, row.ids, media)
        slots = np.flatnonzero(np.isin(row.ids, (config.video_token_id, config.image_token_id)))
        visual_index[b, slots] = seen + np.arange(len(slots))
        seen += len(slots)
        text.append(np.flatnonzero(visual_index[b, :length] < 0))
        # A row without visual tokens has nothing to be asked about: its last token stands in.
        after = np.arange(slots[-1] + 1, length) if len(slots) else np.arange(0)
        queries.append(after if len(after) else np.array([length - 1]))
        lines += _table_lines(config, b, slots, row.media)
    table = _table(lines, bucket(seen, 64) if seen else 0)
    return ModelInputs(
        token_ids=token_ids,
        lengths=np.array([len(row.ids) for row in rows], np.int32),
        positions=positions,
        next_position=next_position,
        visual_index=visual_index,
        table=table,
        text_columns=_columns(text),
        query_columns=_columns(queries),
        vision=_vision(model, draft, rows, len(table.row)),
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


def _table_lines(
    config: Any, row: int, slots: np.ndarray, media: Sequence[Media]
) -> list[np.ndarray]:
    """Lines ``[n, 9]`` (row, slot, video, frame, y, x, frames, height, width) of one prompt's
    visual tokens."""
    lines, at, video = [], 0, 0
    merge = config.vision.merge_size
    for item in media:
        t, h, w = item.grid
        shape = (t, h // merge, w // merge)
        grid = np.indices(shape).reshape(3, -1)
        count = grid.shape[1]
        number = video if item.kind == "video" else -1
        video += item.kind == "video"
        head = np.stack(
            [np.full(count, row), slots[at : at + count], np.full(count, number)], axis=0
        )
        sizes = np.broadcast_to(np.array(shape)[:, None], grid.shape)
        lines.append(np.concatenate([head, grid, sizes]).T)
        at += count
    return lines


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
    vision = model.config.vision
    for item in media:
        if item.pixels.shape[1:] != (vision.patch_dim,):
            raise HippoError(
                f"a {item.kind} has patches of shape {item.pixels.shape[1:]}, the vision tower "
                f"takes {vision.patch_dim} numbers; processor and model do not belong together"
            )
        if not np.isfinite(item.pixels).all():
            raise HippoError(f"a {item.kind} has pixels that are not finite; check its source")
    patches = tokens * vision.merge_size**2
    pixels = np.zeros((patches, media[0].pixels.shape[1]), np.float32)
    given = np.concatenate([item.pixels for item in media])
    pixels[: len(given)] = given
    grids = [item.grid for item in media]
    layout = model.family.build_vision_layout(vision, grids, patches)
    other = None
    if draft is not None and _cuts_otherwise(vision, draft.config.vision):
        other = draft.family.build_vision_layout(draft.config.vision, grids, patches)
    return VisionInputs(pixels, layout, other)


def _cuts_otherwise(a: Any, b: Any) -> bool:
    keys = ("window_size", "patch_size", "merge_size", "temporal_patch_size")
    return any(getattr(a, key, None) != getattr(b, key, None) for key in keys)
