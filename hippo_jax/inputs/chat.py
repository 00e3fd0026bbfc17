"""Prompts: tokenizer, chat template, and placeholders repeated once for each visual token."""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hippo_jax.errors import HippoError
from hippo_jax.inputs.media import encode_media
from hippo_jax.inputs.model_inputs import Row
from hippo_jax.inputs.protocol import Marks, Processor
from hippo_jax.inputs.spelling import repeat_placeholders

Messages = Sequence[Mapping[str, Any]]
_PROBE = "is a plain text shown?"


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
    processor: Processor,
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
    marks = _marks(tokenizer, special)
    forbidden = [text for text in (*vars(marks).values(), *processor.reserved) if text]
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
    text = _render(tokenizer, _as_parts(tokenizer, messages), add_generation_prompt)
    spelling = processor.spell(text, encoded, marks)
    ids = tokenizer(spelling.text, add_special_tokens=False, verbose=False)["input_ids"]
    placeholders = (special.image_token_id, special.video_token_id)
    return Row(repeat_placeholders(ids, spelling.runs, placeholders), tuple(encoded))


def _marks(tokenizer: Any, special: SpecialTokens) -> Marks:
    """Texts of the tokens that mark or hold visual input."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    texts: list[Any] = []
    for name in names:
        token = getattr(special, name, None)
        texts.append(None if token is None else tokenizer.convert_ids_to_tokens(int(token)))
    for name, text in zip(names[:2], texts[:2], strict=True):
        if not text:
            raise HippoError(
                f"the tokenizer has no token for the model's {name} {getattr(special, name)}; "
                "tokenizer and model do not belong together"
            )
    return Marks(*texts)


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


def _as_parts(tokenizer: Any, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts as lists of one part, for templates (LLaVA-OneVision's) that know only those and would
    leave out a plain text without a word."""
    if all(not isinstance(message["content"], str) for message in messages):
        return messages
    try:
        said = _render(tokenizer, [{"role": "user", "content": _PROBE}], False)
    except HippoError:
        return (
            messages  # it may be about this conversation alone; the messages themselves will tell
        )
    if _PROBE in said:
        return messages
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message["content"], str)
        else message
        for message in messages
    ]


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
