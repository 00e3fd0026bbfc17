"""What the pair is judged by: greedy captions of held-out clips, and the draft's agreement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures.attention import cached_attention, causal_attention
from hippo_jax.architectures.cache import from_prompt, write
from hippo_jax.training import language
from hippo_jax.training.batches import (
    patches_uint8,
    prefix_ids,
    prompt_ids,
    token_ids,
    tokenizer,
)
from hippo_jax.training.domain import HELD_OUT, Scene, sample_scene
from hippo_jax.training.networks import (
    TEXT_START,
    PackedText,
    Skeleton,
    Weights,
    encode_clips,
    run_decoder,
    visual_positions,
)
from hippo_jax.training.render import render
from hippo_jax.training.scoring import Score, score_captions

LONGEST = 104  # tokens of a caption, the end token included
CHUNK = 16  # clips at a time


class Clips(NamedTuple):
    """Held-out clips: scenes, patches uint8 `[n, 1296, 1176]`, the style each is asked in."""

    scenes: tuple[Scene, ...]
    patches: np.ndarray
    styles: tuple[int, ...]


def held_out_clips(
    count: int,
    seed: int,
    styles: Sequence[int] = (0, 1, 2),
    through: Callable[[np.ndarray], np.ndarray] = lambda frames: frames,
) -> Clips:
    """`count` clips of the held-out split; `through` may send the frames through a codec."""
    scenes = tuple(sample_scene(seed, i, HELD_OUT) for i in range(count))
    patches = np.stack([patches_uint8(through(render(scene)[0])) for scene in scenes])
    return Clips(scenes, patches, tuple(styles[i % len(styles)] for i in range(count)))


class Judge:
    """Judges weights of a pair; what it compiles, it compiles once."""

    def __init__(self, models: Mapping[str, Skeleton]) -> None:
        target, draft = models["target"], models["draft"]
        self.decode = jax.jit(lambda *args: _greedy(target, *args))
        self.force = jax.jit(lambda *args: _forced(draft, *args))


def greedy_texts(judge: Judge, weights: Weights, clips: Clips) -> list[tuple[int, ...]]:
    """The target's greedy token ids of each clip's caption, without the end token."""
    found: dict[int, tuple[int, ...]] = {}
    end = token_ids("<|im_end|>")[0]
    for style, prompt in enumerate(language.PROMPTS):
        members = [i for i, s in enumerate(clips.styles) if s == style]
        ids = jnp.asarray(prompt_ids(prompt))
        for start in range(0, len(members), CHUNK):
            chunk = members[start : start + CHUNK]
            full = chunk + [chunk[-1]] * (CHUNK - len(chunk))  # one compiled size
            tokens = np.asarray(judge.decode(weights, clips.patches[full], ids))
            for index, row in zip(chunk, tokens, strict=False):
                stop = int(np.argmax(row == end)) if (row == end).any() else len(row)
                found[index] = tuple(int(t) for t in row[:stop])
    return [found[i] for i in range(len(clips.scenes))]


def _greedy(model: Skeleton, weights: Weights, patches: jax.Array, prompt: jax.Array) -> jax.Array:
    decoder = model.with_decoder(weights)
    features = encode_clips(model.with_vision(weights), patches)
    batch, visual, _ = features.shape
    lead, tail = len(prefix_ids()), prompt.shape[0]
    width = features.shape[-1]
    prefix = decoder.embed(jnp.asarray(prefix_ids()))
    head = jnp.broadcast_to(prefix, (batch, lead, width))
    rest = jnp.broadcast_to(decoder.embed(prompt), (batch, tail, width))
    x = jnp.concatenate([head, features, rest], axis=1)
    axes = np.concatenate(
        [
            np.tile(np.arange(lead), (3, 1)),
            visual_positions(),
            np.tile(TEXT_START + np.arange(tail), (3, 1)),
        ],
        axis=1,
    )
    positions = jnp.broadcast_to(jnp.asarray(axes)[:, None], (3, batch, lead + visual + tail))
    x, blocks = decoder.run_layers(x, positions, lambda _, q, k, v: causal_attention(q, k, v))
    lengths = jnp.full((batch,), lead + visual + tail, jnp.int32)
    cache = from_prompt(blocks, lengths, LONGEST)
    first = jnp.argmax(decoder.logits(x[:, -1]), -1).astype(jnp.int32)

    def step(carry, index):
        cache, token = carry
        written = jnp.full((batch,), index, jnp.int32)
        place = jnp.broadcast_to(TEXT_START + tail + index, (3, batch, 1))

        def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return cached_attention(q, k, v, cache.layers[layer], cache.prompt_lengths, written)

        x, blocks = decoder.run_layers(decoder.embed(token[:, None]), place, attend)
        following = jnp.argmax(decoder.logits(x[:, -1]), -1).astype(jnp.int32)
        return (write(cache, blocks, index), following), token

    _, tokens = jax.lax.scan(step, (cache, first), jnp.arange(LONGEST))
    return tokens.T


def score_greedy(clips: Clips, texts: Sequence[tuple[int, ...]]) -> Score:
    """Attribute scores of greedy captions."""
    words = [tokenizer().decode(list(ids)) for ids in texts]
    return score_captions(zip(clips.scenes, words, strict=True))


class Agreement(NamedTuple):
    """Share of the target's own greedy tokens that the draft would have chosen."""

    everything: float
    content: float
    no_video: float
    tenth: float  # with a random tenth of the visual tokens


def agreement(
    judge: Judge,
    draft: Weights,
    clips: Clips,
    texts: Sequence[tuple[int, ...]],
) -> Agreement:
    """Teacher-forced agreement of the draft's argmax with the target's greedy captions.

    Content words are the tokens that name an attribute (articles and links left out).
    """
    content_ids = _content_ids()
    rng = np.random.default_rng(0)
    hits: dict[str, list[np.ndarray]] = {"all": [], "none": [], "tenth": []}
    content, valid = [], []
    for start in range(0, len(texts), CHUNK):
        members = [min(i, len(texts) - 1) for i in range(start, start + CHUNK)]
        real = np.array([start + i < len(texts) for i in range(CHUNK)])
        text, targets = _teacher(clips, texts, members)
        judged = (targets >= 0) & real[:, None]
        valid.append(judged)
        content.append(np.isin(targets, content_ids) & judged)
        visual = visual_positions().shape[1]
        scores = rng.random((CHUNK, visual))
        tenth = scores >= np.sort(scores, axis=1)[:, [-int(np.ceil(visual / 10))]]
        for name, keep in (
            ("all", np.ones((CHUNK, visual), bool)),
            ("none", np.zeros((CHUNK, visual), bool)),
            ("tenth", tenth),
        ):
            chosen = np.asarray(judge.force(draft, clips.patches[members], keep, text))
            hits[name].append(chosen == targets)
    judged, said = np.concatenate(valid), np.concatenate(content)
    found = {name: np.concatenate(parts) for name, parts in hits.items()}
    return Agreement(
        everything=float(found["all"][judged].mean()),
        content=float(found["all"][said].mean()),
        no_video=float(found["none"][judged].mean()),
        tenth=float(found["tenth"][judged].mean()),
    )


def _teacher(
    clips: Clips, texts: Sequence[tuple[int, ...]], members: Sequence[int]
) -> tuple[PackedText, np.ndarray]:
    length = LONGEST + 16
    ids = np.zeros((len(members), length), np.int32)
    segments = np.full_like(ids, -1)
    targets = np.full_like(ids, -1)
    end = token_ids("<|im_end|>")
    for row, index in enumerate(members):
        prompt = prompt_ids(language.PROMPTS[clips.styles[index]])
        answer = (*texts[index], *end)
        line = (*prompt, *answer)
        ids[row, : len(line) - 1] = line[:-1]
        segments[row, : len(line) - 1] = 0
        targets[row, len(prompt) - 1 : len(line) - 1] = answer
    offsets = np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)
    return PackedText(*map(jnp.asarray, (ids, offsets, segments))), targets


def _forced(
    model: Skeleton, weights: Weights, patches: jax.Array, keep: jax.Array, text: PackedText
) -> jax.Array:
    decoder = model.with_decoder(weights)
    features = encode_clips(model.with_vision(weights), patches)
    positions = jnp.broadcast_to(jnp.asarray(visual_positions())[:, None], (3, *features.shape[:2]))
    hidden = run_decoder(decoder, features, positions, keep, text)
    return jnp.argmax(decoder.logits(hidden.text), -1)


def _content_ids() -> np.ndarray:
    found: set[int] = set()
    for index in range(300):
        for style in range(len(language.PROMPTS)):
            for text, attribute in language.caption(sample_scene(0, index), style).pieces:
                if attribute is not None:
                    found |= set(token_ids(text))
    template = token_ids(" and") + token_ids(", then") + token_ids(" a") + token_ids(" an")
    return np.array(sorted(found - set(template)))
