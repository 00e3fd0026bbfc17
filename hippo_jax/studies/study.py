"""What a study found: a table for people, a CSV for programs, panels for a picture."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hippo_jax.benchmark.measure import Summary, cell, where
from hippo_jax.errors import HippoError
from hippo_jax.studies.charts import Panel, draw

Value = str | int | float | Summary | None


@dataclass(frozen=True)
class Column:
    """A column of a study.

    Attributes:
        key: of its values in a row, and its name in the CSV. What is modelled and not measured says
            so in its key. A ``Summary`` takes three columns there, the others with ``_low`` and
            ``_high``.
        head: in the table, with its unit.
        form: of a number in the table, or what makes a text of one.
    """

    key: str
    head: str
    form: str | Callable[[Any], str] = ".3g"

    def text(self, value: Value) -> str:
        """A cell of the table; ``?`` where nothing was counted."""
        if value is None:
            return "?"
        if isinstance(value, Summary):
            return cell({"median": value.median, "low": value.low, "high": value.high})
        if isinstance(value, str):
            return value
        return format(value, self.form) if isinstance(self.form, str) else self.form(value)


@dataclass(frozen=True)
class Study:
    """One study's findings.

    Attributes:
        name: of the command, and of its files.
        title: what it shows, with the word "modelled" where any number of it is.
        about: what was measured on what: clips, settings, hardware.
        columns: in order.
        rows: values by column key.
        panels: the picture, from top to bottom.
        machine: as ``benchmark.measure.machine``.
        notes: sentences for below the table.
    """

    name: str
    title: str
    about: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Value], ...]
    panels: tuple[Panel, ...]
    machine: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Title and hardware."""
        return f"{self.title} ({where(self.machine)})"

    def as_table(self) -> str:
        """Markdown."""
        lines = [f"{self.heading}", "", self.about, ""]
        lines.append(f"| {' | '.join(column.head for column in self.columns)} |")
        lines.append("|" + "---|" * len(self.columns))
        for row in self.rows:
            cells = [column.text(row.get(column.key)) for column in self.columns]
            lines.append(f"| {' | '.join(cells)} |")
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def flat_rows(self) -> list[dict[str, str | int | float | None]]:
        """The rows with every summary as three values."""
        found = []
        for row in self.rows:
            flat: dict[str, str | int | float | None] = {}
            for column in self.columns:
                value = row.get(column.key)
                if isinstance(value, Summary):
                    flat[column.key] = value.median
                    flat[f"{column.key}_low"] = value.low
                    flat[f"{column.key}_high"] = value.high
                else:
                    flat[column.key] = None if value == "" else value  # does not apply
            found.append(flat)
        return found

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "study": self.name,
            "title": self.title,
            "about": self.about,
            "machine": dict(self.machine),
            "rows": self.flat_rows(),
            "notes": list(self.notes),
        }

    def as_csv(self) -> str:
        """One line a row; the last two columns repeat title and hardware."""
        rows = self.flat_rows()
        # A row may lack a measurement that others have.
        keys = list(dict.fromkeys(key for column in self.columns for key in _keys(column, rows)))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*keys, "title", "hardware"], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "title": self.title, "hardware": where(self.machine)})
        return text.getvalue()

    def write(self, folder: Path) -> tuple[Path, Path]:
        """``NAME.csv`` and ``NAME.png`` in a folder that is there; each is whole or not there."""
        table, image = folder / f"{self.name}.csv", folder / f"{self.name}.png"
        picture = draw(self.title, f"{self.about}; {where(self.machine)}", self.panels)
        _replaced(table, lambda path: path.write_text(self.as_csv(), encoding="utf-8"))
        _replaced(image, lambda path: picture.save(path, format="PNG"))
        return table, image


def read_csv(path: Path) -> list[dict[str, str | float | None]]:
    """The rows of a study's file, numbers as numbers, ``None`` for nothing."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def output_folder(path: Path) -> Path:
    """The folder for a study's files, made where it is missing: before anything is measured.

    Raises:
        HippoError: it cannot be one, or nothing may be written there.
    """
    path = path.expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise HippoError(f"--out {path} cannot be a folder: {said}") from error
    if not os.access(path, os.W_OK):
        raise HippoError(f"--out {path}: nothing may be written there; name another folder")
    return path


def _keys(column: Column, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [column.key, f"{column.key}_low", f"{column.key}_high"]
    return [names[0], *(name for name in names[1:] if any(name in row for row in rows))]


def _number(text: str) -> str | float | None:
    if text == "":
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _replaced(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
