"""Places for videos and images in a rendered prompt, and placeholders repeated for each token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.protocol import Spelling


def spell_places(
    text: str,
    media: Sequence[Media],
    places: Mapping[str, str],
    spelled: Callable[[Media], tuple[str, Sequence[int]]],
) -> Spelling:
    """Replaces the k-th place of ``text`` by what ``spelled`` says of the k-th medium.

    Args:
        places: kind (``"video"``, ``"image"``) to the text that the chat template puts there.
        spelled: text of a medium, with one placeholder token for each run, and the runs' lengths.

    Raises:
        HippoError: places and media differ in number or, one by one, in kind.
    """
    kinds = {place: kind for kind, place in places.items()}
    pattern = "|".join(re.escape(place) for place in sorted(kinds, key=len, reverse=True))
    parts = re.split(f"({pattern})", text)  # plain text and places by turns
    found, given = [kinds[place] for place in parts[1::2]], [item.kind for item in media]
    if found != given:
        raise HippoError(
            f"the prompt has places for {_count(found)} but {_count(given)} came with it; "
            "give one message part for each, in the same order"
        )
    runs: list[int] = []
    for number, item in enumerate(media):
        parts[2 * number + 1], own = spelled(item)
        runs += own
    return Spelling("".join(parts), tuple(runs))


def repeat_placeholders(
    ids: Sequence[int], runs: Sequence[int], placeholders: Sequence[int]
) -> np.ndarray:
    """Token ids of a ``Spelling``'s text to int32 ids with each placeholder repeated."""
    given = np.asarray(ids, np.int32)
    places = np.flatnonzero(np.isin(given, placeholders))
    if len(places) != len(runs):
        raise HippoError(
            f"the tokenizer made {len(places)} visual placeholders out of {len(runs)}; tokenizer "
            "and model do not belong together"
        )
    repeats = np.ones(len(given), np.int64)
    repeats[places] = runs
    return np.repeat(given, repeats)


def _count(kinds: Sequence[str]) -> str:
    """Words for a list of kinds: "1 video", "video + image"."""
    if not kinds:
        return "no video or image"
    if len(set(kinds)) == 1:
        return f"{len(kinds)} {kinds[0]}{'s' if len(kinds) > 1 else ''}"
    return " + ".join(kinds)
