"""``Sample``: one prompt about one video; and the plain JSONL format for samples of one's own.

A line of the JSONL file is an object with these fields, of which ``video`` and ``prompt`` must be
there:

    video     path of a file or a folder of frames, relative to ``--videos``, else to the JSONL file
    prompt    what is asked; of a multiple-choice question the question alone
    id        unique in the file; default: the line's number, counted from 1
    options   list of answers; makes the sample a multiple-choice question
    answer    its right answer: a letter, or one of the options word for word
    task      name under which accuracy is counted; default: "all"
    start     seconds, where the part of the video begins that is shown
    end       seconds, where it ends
    extra     object with anything else, kept as it is

Empty lines are skipped. Another field is an error, so that a misspelled one does not go unheard.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.choice import LETTERS, Style, ask

_FIELDS = frozenset(("id", "video", "prompt", "options", "answer", "task", "start", "end", "extra"))


@dataclass(frozen=True)
class Sample:
    """One prompt about one video.

    Attributes:
        id: unique within a benchmark.
        video: file or folder of frames.
        prompt: the whole text that is asked, options and instruction included.
        kind: ``"caption"`` counts for speed, ``"choice"`` for quality.
        options: answers to choose from, ``()`` for a caption.
        answer: letter of the right option, ``None`` where it is not known (or for a caption).
        tasks: names under which accuracy is counted.
        rule: how the letter is read from the model's text, a key of ``choice.RULES``.
        start, end: part of the video in seconds.
        frame_rate: of a folder of frames, frames a second at which they were taken.
        extra: anything else the benchmark says.
    """

    id: str
    video: str
    prompt: str
    kind: Literal["caption", "choice"] = "caption"
    options: tuple[str, ...] = ()
    answer: str | None = None
    tasks: tuple[str, ...] = ("all",)
    rule: str = "letter"
    start: float | None = None
    end: float | None = None
    frame_rate: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


def question(
    *,
    question: str,
    options: Sequence[str],
    answer: str | int | None,
    style: Style,
    where: str,
    **fields: Any,
) -> Sample:
    """A multiple-choice sample.

    Args:
        question: as the benchmark has it; what is asked is made of it by ``style``.
        answer: a letter, a whole option, or its index; ``None`` where it is not known.
        where: file and place, for errors.
        fields: the sample's other fields.

    Raises:
        HippoError: fewer than two options or too many, an answer that is none of them.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise HippoError(
            f"{where}: {len(options)} options; a question needs from 2 to {len(LETTERS)}"
        )
    texts = tuple(str(option) for option in options)
    return Sample(
        prompt=ask(style, question, texts),
        kind="choice",
        options=texts,
        answer=_letter(answer, texts, where),
        rule=style.rule,
        **fields,
    )


def _letter(answer: str | int | None, options: Sequence[str], where: str) -> str | None:
    if answer is None:
        return None
    if isinstance(answer, str) and answer in options:
        return LETTERS[options.index(answer)]
    if isinstance(answer, str) and len(answer.strip()) == 1:
        index = LETTERS.find(answer.strip().upper())
    else:
        index = answer if isinstance(answer, int) and not isinstance(answer, bool) else -1
    if not 0 <= index < len(options):
        raise HippoError(
            f"{where}: the answer {answer!r} is none of the {len(options)} options; give a letter "
            "or one of the options word for word"
        )
    return LETTERS[index]


def check_unique(samples: Sequence[Sample], where: str) -> None:
    """Refuse (HippoError) no samples at all, and an id that stands twice."""
    if not samples:
        raise HippoError(f"{where} holds no samples")
    seen: set[str] = set()
    for one in samples:
        if one.id in seen:
            raise HippoError(f"{where}: the id {one.id!r} stands twice; ids must be unique")
        seen.add(one.id)


def fingerprint(samples: Sequence[Sample], root: str | Path) -> str:
    """SHA-256 over all that is asked, whatever folder (``root``) the videos lie in."""
    digest = hashlib.sha256()
    for one in samples:
        video = Path(one.video)
        if video.is_relative_to(root):
            video = video.relative_to(root)
        plain = asdict(replace(one, video=video.as_posix(), extra={}))
        digest.update(json.dumps(plain, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def read_jsonl(path: Path, videos: Path | None, style: Style) -> list[Sample]:
    """Samples of one's own, in the format described above.

    Raises:
        HippoError: a file that cannot be read, or a line that does not fit, with its number.
    """
    root = path.parent if videos is None else videos
    found = []
    for number, value in json_lines(path):
        found.append(_sample(value, root, style, f"{path}, line {number}", number))
    check_unique(found, str(path))
    return found


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not empty, with the line's number from 1."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise HippoError(f"{path}, line {number}: not JSON ({error})") from None


def read_text(path: Path) -> str:
    """A text file; HippoError says what is wrong with it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise HippoError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise HippoError(f"{path} is no UTF-8 text; give annotations as JSON") from None


def _sample(value: Any, root: Path, style: Style, where: str, number: int) -> Sample:
    if not isinstance(value, dict):
        raise HippoError(f"{where}: expected a JSON object, got {type(value).__name__}")
    strange = sorted(set(value) - _FIELDS)
    if strange:
        raise HippoError(
            f"{where}: unknown field {strange[0]!r}; known are {', '.join(sorted(_FIELDS))}"
        )
    for name in ("video", "prompt"):
        if not isinstance(value.get(name), str) or not value[name].strip():
            raise HippoError(f"{where}: {name!r} must be a text that is not empty")
    common: dict[str, Any] = {
        "id": str(value.get("id", number)),
        "video": str(root / value["video"]),
        "tasks": (str(value.get("task", "all")),),
        "start": _seconds(value, "start", where),
        "end": _seconds(value, "end", where),
        "extra": value.get("extra", {}),
    }
    if not isinstance(common["extra"], dict):
        raise HippoError(f"{where}: 'extra' must be an object")
    options = value.get("options")
    if options is None:
        if value.get("answer") is not None:
            raise HippoError(f"{where}: an 'answer' needs 'options' to choose from")
        return Sample(prompt=value["prompt"], **common)
    if not isinstance(options, list) or not all(isinstance(text, str) for text in options):
        raise HippoError(f"{where}: 'options' must be a list of texts")
    answer = value.get("answer")
    if not (answer is None or isinstance(answer, str)):
        raise HippoError(f"{where}: 'answer' must be a letter or one of the options")
    return question(
        question=value["prompt"],
        options=options,
        answer=answer,
        style=style,
        where=where,
        **common,
    )


def _seconds(value: Mapping[str, Any], name: str, where: str) -> float | None:
    found = value.get(name)
    if found is None:
        return None
    number = isinstance(found, (int, float)) and not isinstance(found, bool)
    if not number or not (math.isfinite(found) and found >= 0):
        raise HippoError(f"{where}: {name!r} must be a number of seconds from 0 on, got {found!r}")
    return float(found)
