"""What is asked about the videos of a benchmark: its questions, captions, or both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.samples import Sample

CAPTION_PROMPT = "Describe the video in detail."
Ask = Literal["questions", "captions", "both"]


def asked(samples: Sequence[Sample], ask: Ask) -> list[Sample]:
    """Of ``samples`` the questions, or a caption of each of their videos, or both.

    What is asked about one video stands together, so that it is read once.

    Raises:
        HippoError: there is nothing of the kind.
    """
    questions = [one for one in samples if one.kind == "choice"]
    described = [one for one in samples if one.kind == "caption"]
    known = {_part(one) for one in described}
    described += [one for one in captions(questions) if _part(one) not in known]
    kinds = {"questions": questions, "captions": described, "both": questions + described}
    if not kinds[ask]:
        raise HippoError(f"there are no {ask} among the samples; choose another --ask")
    order: dict[Any, int] = {}
    for one in samples:
        order.setdefault(_part(one), len(order))
    return sorted(kinds[ask], key=lambda one: order[_part(one)])


def _part(sample: Sample) -> Any:
    return sample.video, sample.start, sample.end


def captions(samples: Iterable[Sample], prompt: str = CAPTION_PROMPT) -> list[Sample]:
    """The videos (or parts of videos) of ``samples``, each once, to be described."""
    seen: dict[Any, Sample] = {}
    for one in samples:
        if _part(one) not in seen:
            seen[_part(one)] = Sample(
                id=f"caption of {one.id}",
                video=one.video,
                prompt=prompt,
                start=one.start,
                end=one.end,
                frame_rate=one.frame_rate,
            )
    return list(seen.values())
