"""Whether two models can be fed the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError
from hippo_jax.inputs.chat import load_tokenizer
from hippo_jax.inputs.protocol import Processor

# What one set of inputs fixes for both models, besides what their family adds. Vocabularies may be
# padded differently.
_SHARED = ("family", "image_token_id", "video_token_id")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt")


def check_configs(target: Any, draft: Any, shared: Callable[[Any], Mapping[str, Any]]) -> None:
    """Refuse two ``VideoLMConfig`` that differ in what inputs are made for.

    ``shared``: the target's ``family.shared``.
    """
    for name in _SHARED:
        _equal(name, getattr(target, name), getattr(draft, name))
    _equal_all("", shared(target), shared(draft))


def check_files(
    target: str | None, draft: str | None, processor: Callable[[str], Processor]
) -> None:
    """Refuse checkpoint directories whose tokenizers or processors (``family.processor``) differ.

    Inputs are made with the target's files; only what would make the draft misread them counts:
    the same id for two texts, or other pixel values. Files that a draft lacks are not missed.
    """
    if target is None or draft is None or Path(target) == Path(draft):
        return
    if not _same_bytes(Path(target), Path(draft)):
        _check_tokenizers(target, draft)
    try:
        ours, theirs = (processor(path).shared() for path in (target, draft))
    except HippoError:  # one has no processor: prepare_inputs says so where it matters
        return
    _equal_all("the processor's ", ours, theirs)


def _equal_all(prefix: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    for name, value in ours.items():
        _equal(f"{prefix}{name}", value, theirs[name])


def _equal(name: str, ours: Any, theirs: Any) -> None:
    if ours != theirs:
        raise HippoError(
            f"target and draft do not fit: {name} is {ours} and {theirs}; use two sizes of one "
            "model"
        )


def _same_bytes(target: Path, draft: Path) -> bool:
    """Whether the tokenizers are equal without a look inside (reading a large one takes seconds).

    A draft without a tokenizer counts as equal: the target's is the one that is used.
    """
    found = [name for name in _TOKENIZER_FILES if (draft / name).is_file()]
    return all(
        (target / name).is_file() and (target / name).read_bytes() == (draft / name).read_bytes()
        for name in found
    )


def _check_tokenizers(target: str, draft: str) -> None:
    ours, theirs = (load_tokenizer(path).get_vocab() for path in (target, draft))
    texts = {number: text for text, number in ours.items()}
    for text, number in sorted(theirs.items(), key=lambda item: item[1]):
        if texts.get(number, text) != text:
            raise HippoError(
                f"target and draft have different tokenizers: token {number} is "
                f"{texts[number]!r} and {text!r}; use two sizes of one model"
            )
