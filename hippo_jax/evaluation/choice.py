"""Multiple-choice questions: how they are asked, and how the answer's letter is read.

The rules are those of the benchmarks' own scripts, written anew. One thing is the same in all: a
text without a letter is never right. (Some scripts guess there, or count an empty text as right.)
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hippo_jax.errors import HippoError

LETTERS = string.ascii_uppercase
INSTRUCTION = "Answer with the letter of the right option only."


@dataclass(frozen=True)
class Style:
    """How a question is written.

    Attributes:
        rule: how the answer is read, a key of ``RULES``.
        option: of each option, a format with ``{letter}`` and ``{text}``.
        layout: a format with ``{question}``, ``{instruction}`` and, unless the question names its
            options itself, ``{options}``.
        instruction: what to answer with. It is in our words; published numbers were made with the
            benchmark's own sentence, so give that one to compare with them.
    """

    rule: str = "letter"
    option: str = "({letter}) {text}"
    layout: str = "{question}\n{options}\n{instruction}"
    instruction: str = INSTRUCTION

    def saying(self, instruction: str | None) -> Style:
        """The same with another instruction, if one is given."""
        return self if instruction is None else replace(self, instruction=instruction)


def ask(style: Style, question: str, options: Sequence[str]) -> str:
    """The whole text of a question."""
    lines = [
        _filled(style.option, letter=letter, text=text.strip())
        for letter, text in zip(LETTERS, options, strict=False)
    ]
    return _filled(
        style.layout,
        question=question.strip(),
        options="\n".join(lines),
        instruction=style.instruction,
    )


def _filled(form: str, **parts: str) -> str:
    """``str.format``, but braces in what is filled in, or without a name, are only braces."""
    return re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), form)


@dataclass(frozen=True)
class Rule:
    """How an answer is read and counted.

    Attributes:
        read: ``(text, letters) -> letter`` or ``None``; ``letters`` are those of the options.
        counts_unread: whether a text without a letter counts as a wrong answer. Otherwise the
            question is left out of the accuracy.
        source: where the rule was found.
    """

    read: Callable[[str, str], str | None]
    counts_unread: bool
    source: str


def read_answer(rule: str, text: str, options: int) -> str | None:
    """The letter that ``text`` gives, by the rule of this name; ``None``: it gives none.

    Raises:
        HippoError: no such rule.
    """
    if rule not in RULES:
        raise HippoError(f"there is no rule {rule!r}; rules that exist: {', '.join(RULES)}")
    return RULES[rule].read(text, LETTERS[:options])


def _letter(text: str, letters: str) -> str | None:
    """The first letter that stands alone; "A" in front of a small word is the article."""
    for found in re.finditer(r"(?<![\w'])[A-Z](?![\w'])", text):
        article = found[0] in "AI" and re.match(r"\s+[a-z]", text[found.end() :])
        if found[0] in letters and not article:
            return found[0]
    return None


_OPENINGS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)


def _first_capital(text: str, letters: str) -> str | None:
    """The first capital that names an option, wherever it stands, behind known openings."""
    for opening in _OPENINGS:
        text = text.replace(opening, "")
    return next((sign for sign in text if sign in letters), None)


def _first_word(text: str, letters: str) -> str | None:
    """The first word of the first line is the letter, in either case, with or without marks."""
    words = text.strip().split("\n")[0].split(" ")
    word = words[0].strip("().:,").upper()
    return word if len(word) == 1 and word in letters else None


def _before_bracket(text: str, letters: str) -> str | None:
    """What stands before the first closing bracket is the letter and nothing else."""
    found = re.match(r"\s*\(?\s*([A-Z])\s*(?:[).:]|$)", text)
    return found[1] if found and found[1] in letters else None


def _in_brackets(text: str, letters: str) -> str | None:
    """The first sign between brackets, or of the first word."""
    part = text.strip().split(")")[0].strip()
    if "(" in part:
        part = part.split("(")[1].strip()
    word = part.split(" ")[0]
    return word[0] if word and word[0] in letters else None


RULES = {
    "letter": Rule(_letter, True, "our own"),
    "videomme": Rule(
        _first_capital,
        False,
        "evaluation/eval_your_results.py of github.com/BradyFU/Video-MME (with the commas that two "
        "of its openings lack)",
    ),
    "mvbench": Rule(
        _first_word,
        True,
        "check_ans in video_chat2/mvbench.ipynb of github.com/OpenGVLab/Ask-Anything, for answers "
        "that are not made to start with a bracket",
    ),
    "mlvu": Rule(
        _before_bracket,
        True,
        "check_ans in videochat2/choice_bench.py of github.com/JUNJIE99/MLVU, for answers that are "
        "not made to start with a bracket: a full stop, colon or line's end ends the letter too",
    ),
    "lvbench": Rule(_in_brackets, True, "lvbench/utils/answer_util.py of github.com/THUDM/LVBench"),
    "longvideobench": Rule(
        _first_capital,
        True,
        "lmms_eval/tasks/longvideobench/utils.py of github.com/EvolvingLMMs-Lab/lmms-eval, which "
        "guesses where there is no letter",
    ),
}
