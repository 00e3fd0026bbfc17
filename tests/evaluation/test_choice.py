"""How questions are written and how each benchmark reads an answer."""

import pytest

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.choice import RULES, Style, ask, read_answer

READ = {
    "letter": {
        "B": "B",
        "(C) because it moves": "C",
        "The answer is D.": "D",
        "A man walks past. B": "B",  # the article is no answer
        "A. A man walks past": "A",
        "It's a B": "B",
        "E": None,  # there are four options
        "b": None,
        "ABC": None,
        "": None,
    },
    "videomme": {
        "The best answer is C": "C",
        "B. Black.": "B",
        "It is Blue": "B",  # as the benchmark's script does: the first such capital
        "none of these": None,
        "": None,
    },
    "mvbench": {
        "(B) Ate the medicine.": "B",
        "b) ate": "B",
        "B": "B",
        "C.\nD": "C",
        "The answer is B": None,
        "": None,  # the benchmark's script counts it as right
    },
    "mlvu": {
        "B)": "B",
        "(B) yes": "B",
        "B. yes": "B",
        "B": "B",
        "B yes": None,
        "b)": None,
        "": None,
    },
    "lvbench": {
        "(C) 12": "C",
        "I think (D) is right": "D",
        "C": "C",
        "C. twelve": "C",
        "c": None,
        "": None,
    },
    "longvideobench": {"The correct option is D": "D", "E. none": None, "none": None},
}


def test_every_rule_is_tested_and_names_its_source() -> None:
    assert set(READ) == set(RULES)
    assert all(rule.source for rule in RULES.values())


@pytest.mark.parametrize(
    ("rule", "text", "letter"),
    [(rule, text, letter) for rule, cases in READ.items() for text, letter in cases.items()],
)
def test_the_letter_of_a_text(rule: str, text: str, letter: str | None) -> None:
    assert read_answer(rule, text, 4) == letter


def test_letters_go_as_far_as_the_options() -> None:
    assert read_answer("longvideobench", "E. none", 5) == "E"
    assert read_answer("letter", "C", 2) is None


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(HippoError, match=r"no rule 'mine'; rules that exist: letter"):
        read_answer("mine", "A", 2)


def test_a_question_is_written_in_its_style() -> None:
    style = Style(layout="Q: {question}\n{options}\n{instruction}").saying("One letter, {letter}!")
    # Braces of a question are its own.
    assert ask(style, " Which {options}? ", ["red", "{question}"]) == (
        "Q: Which {options}?\n(A) red\n(B) {question}\nOne letter, {letter}!"
    )
