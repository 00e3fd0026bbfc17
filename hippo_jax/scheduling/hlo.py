"""What the loop over rounds does once it is compiled, read from the program's text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

CALLS = re.compile(
    r"(?:body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
)
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
DONE = "-done("  # the second half of an asynchronous operation


@dataclass(frozen=True)
class Loop:
    """The loop in which draft and target exchange tokens.

    Attributes:
        collectives: kind and shapes of each exchange in it, and how often it stands there. Those of
            tensor parallelism inside a role are among them.
        copies: shapes that are copied as a whole, and how often.
        conditionals: branches on a condition, one of them on the device's role.
    """

    collectives: Counter[str]
    copies: Counter[str]
    conditionals: int


def loop_of_rounds(text: str) -> Loop:
    """The loop over rounds of a program with roles, from ``compiled.as_text()``.

    Without such a loop (one device, nothing to exchange) everything is empty.
    """
    found, names = computations(text), loop_with(text, "all-reduce")
    lines = [line for name in names for line in found[name] if DONE not in line]
    collectives: Counter[str] = Counter()
    for line in lines:
        for kind in COLLECTIVES:
            match = re.search(rf"= (.+?) {kind}(?:-start)?\(", line)
            if match:  # XLA may join several exchanges to one
                shapes = re.findall(r"\w+\[[\d,]*\]", match.group(1))
                collectives[" ".join([kind, *shapes])] += 1
    conditionals = sum(" conditional(" in line for line in lines)
    return Loop(collectives, copies(text, names), conditionals)


def computations(text: str) -> dict[str, list[str]]:
    """Name of each computation to its lines."""
    found: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        head = re.match(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and "=" not in line.split("(")[0]:
            name = head.group(1)
            found[name] = []
        elif name is not None:
            found[name].append(line)
    return found


def called(lines: list[str]) -> set[str]:
    """Computations that these lines refer to."""
    names = {name for line in lines for name in CALLS.findall(line)}
    for line in lines:
        for group in BRANCHES.findall(line):
            names |= {part.strip().lstrip("%") for part in group.split(",")}
    return names


def within(found: dict[str, list[str]], start: set[str]) -> set[str]:
    """``start`` and all that is called from there."""
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in seen and name in found:
            seen.add(name)
            waiting += called(found[name])
    return seen


def loop_with(text: str, word: str) -> set[str]:
    """The computations of those ``while`` loops in whose bodies some line has ``word``."""
    found = computations(text)
    bodies = {
        name
        for lines in found.values()
        for line in lines
        if " while(" in line
        for name in re.findall(r"body=%?([\w.\-]+)", line)
    }
    inside = [within(found, {body}) for body in bodies]
    chosen = [names for names in inside if any(word in line for n in names for line in found[n])]
    return set().union(*chosen)


def copies(text: str, names: set[str]) -> Counter[str]:
    """Shapes that the named computations copy, and how often: ``copy`` and the selection of one
    whole array or another, which is what XLA may make of a branch that returns it."""
    found = computations(text)
    shapes: Counter[str] = Counter()
    for name in names:
        for line in found[name]:
            match = re.search(r"= (\w+\[[\d,]*\])\S* (?:copy|copy-start|select)\(", line)
            if match:
                shapes[match.group(1)] += 1
    return shapes
