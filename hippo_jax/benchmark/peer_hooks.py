"""What is hooked onto the torch models of the peer. No code of transformers is replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hippo_jax.benchmark.peer_model import TransformersPeer

LOUD = 1e4
"""A logit above all that a model says by itself, and finite in float16."""


@contextmanager
def seeing(assistant: Any, media: Mapping[str, Any]) -> Iterator[None]:
    """The assistant sees the prompt's videos and images with its own vision tower.

    ``generate`` runs the target's tower, drops the pixels and calls the assistant without them, so
    that it reads the placeholders' embeddings for a video (transformers 5.23). Inside of this
    context the assistant's first forward of an answer, the one with an empty cache, is given
    ``media``: pixels and grids. Rotary positions it is given by ``generate`` itself.
    """

    def first(module: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if kwargs["past_key_values"].get_seq_length():
            return None
        return args, {**kwargs, **media}

    handle = assistant.register_forward_pre_hook(first, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def unsaid(assistant: Any, tokens: Sequence[int], until: int) -> Iterator[None]:
    """The assistant says none of ``tokens`` while its cache is shorter than ``until``.

    The target's first forward checks the first window along with the prompt. A placeholder in that
    window would be one more than there are visual features, which transformers refuses.
    """

    def forbid(module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if output.past_key_values.get_seq_length() < until:
            output.logits[..., list(tokens)] = -float("inf")

    handle = assistant.register_forward_hook(forbid, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class Unlooked:
    """The same for prompt lookup: a logits processor that forbids ``tokens`` as long as a sequence
    is shorter than ``until``. It asks the same processor for what it looks up and for what the
    target says, so the target does not say them there either."""

    def __init__(self, tokens: Sequence[int], until: int) -> None:
        self.tokens, self.until = list(tokens), until

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Both scores ``[B, V]``; the given ones are changed."""
        if input_ids.shape[1] < self.until:
            scores[:, self.tokens] = -float("inf")
        return scores


def say(peer: TransformersPeer, text: np.ndarray) -> None:
    """From now on the model says ``text[p]`` behind an input token at temporal position p.

    One scatter into the logits of the tokens that are asked for; positions beyond the text repeat
    its last token.
    """
    torch = peer.torch
    table = torch.from_numpy(np.asarray(text, np.int64)).to(peer.model.device)
    last = len(text) - 1

    def speak(module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        time = kwargs["position_ids"][-3, :, -output.logits.shape[1] :]
        output.logits.scatter_(-1, table[time.clamp(max=last)][..., None], LOUD)

    peer.model.register_forward_hook(speak, with_kwargs=True)
