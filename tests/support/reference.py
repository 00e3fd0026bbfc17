"""What transformers computes on the prompts of ``tiny``, each thing once."""

import functools
from types import SimpleNamespace

import numpy as np
import torch

from support import tiny

CASES = {"video": lambda: (tiny.video_row(),), "batch": tiny.batch_rows}


@functools.cache
def forward(case: str) -> SimpleNamespace:
    """Logits, positions and every decoder layer's input and output, rows padded on the left."""
    rows, model = CASES[case](), tiny.hf_model()
    layers = model.model.language_model.layers
    seen: dict[str, list] = {"before": [], "after": [], "positions": []}

    def watch_language_model(module, args, kwargs):
        seen["positions"].append(kwargs["position_ids"])

    def watch(module, args, output):
        seen["before"].append(args[0].numpy())
        seen["after"].append((output[0] if isinstance(output, tuple) else output).numpy())

    hooks = [layer.register_forward_hook(watch) for layer in layers]
    hooks.append(
        model.model.language_model.register_forward_pre_hook(watch_language_model, with_kwargs=True)
    )
    try:
        with torch.no_grad():
            logits = model(**tiny.hf_inputs(rows)).logits.numpy()
    finally:
        for hook in hooks:
            hook.remove()
    positions = seen["positions"][0].numpy()[-3:]
    return SimpleNamespace(
        logits=logits, positions=positions, before=seen["before"], after=seen["after"]
    )


@functools.cache
def vision(case: str) -> SimpleNamespace:
    """Visual tokens of all media in order of appearance and each block's input and output.

    The tower of transformers permutes patches into windows; here they are back in raster order.
    """
    from transformers.vision_utils import get_vision_window_index

    rows, tower = CASES[case](), tiny.hf_model().model.visual
    everything = [item for row in rows for item in row.media]
    grids = torch.tensor([item.grid for item in everything])
    window_index, _ = get_vision_window_index(
        grids, spatial_merge_size=2, window_size=56, patch_size=14
    )
    back = torch.argsort(window_index)
    before, after = [], []

    def raster(x):
        return x.reshape(len(back), 4, -1)[back].reshape(len(back) * 4, -1).numpy()

    def watch(module, args, output):
        before.append(raster(args[0]))
        after.append(raster(output))

    hooks = [block.register_forward_hook(watch) for block in tower.blocks]
    try:
        with torch.no_grad():
            pixels = torch.from_numpy(np.concatenate([item.pixels for item in everything]))
            tokens = tower(pixels, grid_thw=grids).pooler_output.numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return SimpleNamespace(tokens=tokens, before=before, after=after)


@functools.cache
def greedy(case: str, penalty: float = 1.0, eos: tuple[int, ...] = (), limit: int = 24):
    """Greedy tokens ``[B, <= limit]`` by ``generate``, rows padded on the left."""
    keywords = {"eos_token_id": list(eos)} if eos else {"eos_token_id": None}
    given = tiny.hf_inputs(CASES[case]())
    with torch.no_grad():
        out = tiny.hf_model().generate(
            **given,
            max_new_tokens=limit,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=tiny.PAD,
            **keywords,
        )
    return out[:, given["input_ids"].shape[1] :].numpy()


def largest_positions(row) -> tuple[np.ndarray, int]:
    """Positions by the rule of transformers 4, token by token: text goes on one past the largest
    position seen so far, in any axis."""
    positions, largest, waiting, at = [], -1, list(row.media), 0
    while at < len(row.ids):
        if row.ids[at] not in (tiny.IMAGE, tiny.VIDEO):
            largest += 1
            positions.append((largest, largest, largest))
            at += 1
            continue
        item = waiting.pop(0)
        start, (t, h, w) = largest + 1, item.grid
        for unit in range(t):
            ticks = 0
            if item.kind == "video":
                seconds = np.float32(item.seconds_per_grid)
                ticks = int(np.float32(unit) * (np.float32(tiny.TOKENS_PER_SECOND) * seconds))
            for y in range(h // 2):
                for x in range(w // 2):
                    positions.append((start + ticks, start + y, start + x))
                    largest = max(largest, *positions[-1])
                    at += 1
    return np.array(positions, np.int32).T, largest + 1


@functools.cache
def greedy_largest(limit: int = 12) -> list[int]:
    """Greedy tokens of ``tiny.video_row`` under the rule of transformers 4: a full forward pass
    without a cache for every token, positions given."""
    row, model = tiny.video_row(), tiny.hf_model()
    given = tiny.hf_inputs([row])
    base, following = largest_positions(row)
    tokens: list[int] = []
    for _ in range(limit):
        new = following + np.arange(len(tokens))
        positions = np.concatenate([base, np.tile(new, (3, 1))], axis=1)
        ids = np.concatenate([row.ids, np.array(tokens, np.int32)])
        given["input_ids"] = torch.from_numpy(ids[None].astype(np.int64))
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        given["mm_token_type_ids"] = (given["input_ids"] == tiny.VIDEO).int() * 2
        given["position_ids"] = torch.from_numpy(positions[:, None].astype(np.int64))
        with torch.no_grad():
            tokens.append(int(model(**given).logits[0, -1].argmax()))
    return tokens
