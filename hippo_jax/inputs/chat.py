"""Prompts: tokenizer, chat template, and placeholders repeated once for each visual token."""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.media import encode_media
from hippo_jax.inputs.model_inputs import Media, Row
from hippo_jax.inputs.processor import ProcessorConfig

Messages = Sequence[Mapping[str, Any]]


_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


class SpecialTokens(Protocol):
    """Ids of the placeholders; a model's config has them."""

    @property
    def image_token_id(self) -> int: ...

    @property
    def video_token_id(self) -> int: ...


def load_tokenizer(directory: str | Path) -> Any:
    """The Hugging Face tokenizer of a checkpoint directory, with the checkpoint's chat template.

    The template is read from chat_template.jinja, else chat_template.json, else the tokenizer's
    own. HippoError if there is no tokenizer or it cannot be read.
    """
    directory = Path(directory)
    files = (directory / name for name in _TOKENIZER_FILES)
    return _load_tokenizer(directory, tuple(f.stat().st_mtime_ns for f in files if f.is_file()))


@functools.lru_cache(maxsize=4)
def _load_tokenizer(directory: Path, times: tuple[int, ...]) -> Any:
    """Kept, because a large one takes seconds; ``times`` tell when its files changed."""
    if not (directory / "tokenizer.json").is_file() and not (directory / "vocab.json").is_file():
        raise HippoError(
            f"{directory} has no tokenizer (tokenizer.json, or vocab.json and merges.txt); "
            "copy it from the checkpoint's repository"
        )
    auto_tokenizer = _auto_tokenizer()

    try:
        tokenizer = auto_tokenizer.from_pretrained(str(directory), local_files_only=True)
        template = _read_template(directory)
    except Exception as error:
        raise HippoError(
            f"the tokenizer in {directory} cannot be read ({_one_line(error)}); fetch it again"
        ) from error
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _auto_tokenizer() -> Any:
    """``transformers.AutoTokenizer``, without its advice that models need torch: ours do not."""
    quiet = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(quiet)
    os.environ[quiet] = "1"
    try:
        from transformers import AutoTokenizer
    finally:
        if before is None:
            del os.environ[quiet]
        else:
            os.environ[quiet] = before
    return AutoTokenizer


def encode_row(
    tokenizer: Any,
    special: SpecialTokens,
    processor: ProcessorConfig,
    media: Sequence[Any],
    prompt: str | Messages,
    *,
    system: str | None = None,
    add_generation_prompt: bool = True,
) -> Row:
    """One prompt with its videos and images, as ids int32 [T] without padding and patches.

    media: `Video`s, images uint8 [H, W, 3] or encoded `Media`, in the order of the prompt.
    prompt: a str, which becomes a user message after all the media; or chat messages as Hugging
      Face's templates take them, {"role": ..., "content": str or parts {"type": "text", "text":
      ...}, {"type": "video"}, {"type": "image"}}, with one part for each of `media`.
    system: system prompt; None leaves it to the messages, else to the template.
    add_generation_prompt: ends the row where the assistant's answer begins.

    HippoError: media and placeholders differ in number or kind, a text that contains a visual
    token, no chat template, or messages the template refuses.
    """
    forbidden = _visual_tokens(tokenizer, special)
    encoded = [encode_media(item, processor) for item in media]
    if isinstance(prompt, str):
        parts: list[dict[str, str]] = [{"type": item.kind} for item in encoded]
        parts.append({"type": "text", "text": prompt})
        messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    else:
        messages = _checked_messages(prompt)
    if system is not None:
        if messages[0]["role"] == "system":
            raise HippoError("the messages have a system message already; drop `system`")
        messages.insert(0, {"role": "system", "content": system})
    for text in _texts(messages):
        for token in forbidden:
            if token in text:
                raise HippoError(
                    f"the prompt contains the special token {token}; remove it (videos and images "
                    "are placed by message parts, or before the text of a plain prompt)"
                )
    text = _render(tokenizer, messages, add_generation_prompt)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return Row(
        ids=expand_placeholders(np.asarray(ids, np.int32), encoded, special, processor.merge_size),
        media=tuple(encoded),
    )


def expand_placeholders(
    ids: np.ndarray, media: Sequence[Media], special: SpecialTokens, merge_size: int
) -> np.ndarray:
    """Repeats the k-th placeholder of int32 ids [T] t * h * w / merge_size**2 times (k-th media).

    HippoError if placeholders and media differ in number or, one by one, in kind.
    """
    kinds = {special.image_token_id: "image", special.video_token_id: "video"}
    places = np.flatnonzero(np.isin(ids, list(kinds)))
    found = [kinds[int(ids[place])] for place in places]
    given = [item.kind for item in media]
    if found != given:
        raise HippoError(
            f"the prompt has places for {_count(found)} but {_count(given)} came with it; "
            "give one message part for each, in the same order"
        )
    repeats = np.ones(len(ids), np.int64)
    for place, item in zip(places, media, strict=True):
        repeats[place] = np.prod(item.grid) // merge_size**2
    return np.repeat(ids, repeats).astype(np.int32)


def _count(kinds: Sequence[str]) -> str:
    """Words for a list of kinds: "1 video", "video + image"."""
    if not kinds:
        return "no video or image"
    if len(set(kinds)) == 1:
        return f"{len(kinds)} {kinds[0]}{'s' if len(kinds) > 1 else ''}"
    return " + ".join(kinds)


def _visual_tokens(tokenizer: Any, special: SpecialTokens) -> list[str]:
    """Texts of the tokens that mark or hold visual input."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = [getattr(special, name, None) for name in names]
    known = [int(token) for token in ids if token is not None]
    texts = tokenizer.convert_ids_to_tokens(known)
    for name, token in zip(names[:2], texts[:2], strict=True):
        if not token:
            raise HippoError(
                f"the tokenizer has no token for the model's {name} {getattr(special, name)}; "
                "tokenizer and model do not belong together"
            )
    return [token for token in texts if token]


def _checked_messages(prompt: Any) -> list[dict[str, Any]]:
    """The messages as plain dicts; HippoError if they do not have the shape of messages."""
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes) or not prompt:
        raise HippoError(
            f"a prompt is a str or a list of chat messages, not {type(prompt).__name__} "
            f"{prompt!r:.60}"
        )
    messages = []
    for place, message in enumerate(prompt):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise HippoError(f"message {place} has no 'role' and 'content'; give both")
        content = message["content"]
        if not isinstance(content, str):
            parts = content if isinstance(content, Sequence) else None
            if parts is None or not all(_is_part(part) for part in parts):
                raise HippoError(
                    f"the content of message {place} is neither text nor a list of parts "
                    '{"type": "text", "text": ...}, {"type": "video"}, {"type": "image"}'
                )
            content = [dict(part) for part in parts]
        messages.append({**message, "content": content})
    return messages


def _is_part(part: Any) -> bool:
    if not isinstance(part, Mapping):
        return False
    if part.get("type") == "text":
        return isinstance(part.get("text"), str)
    return part.get("type") in ("video", "image")


def _texts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every text that users can write into messages."""
    texts = []
    for message in messages:
        texts.append(str(message["role"]))
        if isinstance(message["content"], str):
            texts.append(message["content"])
        else:
            texts += [part["text"] for part in message["content"] if part["type"] == "text"]
    return texts


def _render(tokenizer: Any, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise HippoError(
            "the tokenizer has no chat template; use an instruction-tuned checkpoint, or put its "
            "chat_template.jinja beside the tokenizer"
        )
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template may raise anything
        raise HippoError(
            f"the chat template refuses the messages ({_one_line(error)}); mend them"
        ) from error


def _read_template(directory: Path) -> str | None:
    plain = directory / "chat_template.jinja"
    if plain.is_file():
        return plain.read_text(encoding="utf-8")
    wrapped = directory / "chat_template.json"
    if wrapped.is_file():
        return json.loads(wrapped.read_text(encoding="utf-8"))["chat_template"]
    return None


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
