"""What a study found is told as a table, a CSV and a picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hippo_jax.benchmark.measure import Summary
from hippo_jax.errors import HippoError
from hippo_jax.scoring.picture import Frame
from hippo_jax.studies.charts import COLOURS, Bar, Bars, Lines, draw, marks
from hippo_jax.studies.heat_maps import COLD, KEPT, WARM, HeatMaps, heat
from hippo_jax.studies.study import Column, Study, output_folder, read_csv

MACHINE = {"device": "abacus", "cores": 2, "jax": "0.10"}
LINES = Lines("Length", "setting", ("a", "b"), {"one": [(1, 1, 2), None], "two": [None, (4, 3, 4)]})


@pytest.fixture
def study() -> Study:
    return Study(
        name="probe",
        title="Probe, modelled",
        about="two rows",
        columns=(
            Column("name", "name"),
            Column("modelled_s", "s", ".2f"),
            Column("time_s", "time, s"),
            Column("bytes", "memory", lambda count: f"{count // 1000} kB"),
        ),
        rows=(
            {
                "name": "a, b",
                "modelled_s": 1.23456789,
                "time_s": Summary(2.0, 1.0, 3.0),
                "bytes": 1,
            },
            {"name": 'c "d"', "modelled_s": None, "time_s": "", "bytes": 5000},
        ),
        panels=(LINES,),
        machine=MACHINE,
        notes=("A note.",),
    )


def test_the_table_is_markdown_with_hardware_and_spread(study: Study) -> None:
    assert study.as_table().splitlines() == [
        "Probe, modelled (abacus, 2 cores, jax 0.10)",
        "",
        "two rows",
        "",
        "| name | s | time, s | memory |",
        "|---|---|---|---|",
        "| a, b | 1.23 | 2 (1 to 3) | 0 kB |",
        '| c "d" | ? |  | 5 kB |',
        "",
        "A note.",
    ]


def test_what_is_written_to_a_csv_is_read_back(study: Study, tmp_path: Path) -> None:
    table, picture = study.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"probe.csv", "probe.png"}
    first, second = read_csv(table)
    said = {"title": "Probe, modelled", "hardware": "abacus, 2 cores, jax 0.10"}
    times = {"time_s": 2.0, "time_s_low": 1.0, "time_s_high": 3.0}
    assert first == {"name": "a, b", "modelled_s": 1.23456789, **times, "bytes": 1.0, **said}
    assert second == {
        "name": 'c "d"',
        **dict.fromkeys(("modelled_s", *times)),
        "bytes": 5000.0,
        **said,
    }
    assert study.as_json()["rows"][0]["time_s_high"] == 3.0
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width == 1280


def test_a_picture_that_cannot_be_written_leaves_nothing(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self, path, format):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        study.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["probe.csv"]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    assert output_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HippoError, match="cannot be a folder"):
            output_folder(path)


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in image.getcolors(maxcolors=2**24)}


def test_every_series_and_bar_is_drawn() -> None:
    bars = Bars(
        "Share", (Bar("x", 1.0, 0.5), Bar("y", 2.0, colour=1), Bar("z", None)), line=(3, "l")
    )
    assert set(COLOURS[:2]) <= colours(draw("Title", "said", [LINES]))
    assert set(COLOURS[:2]) <= colours(draw("Title", "said " * 90, [bars, LINES]))
    empty = Lines("Nothing", "setting", ("a",), {"one": [None]})
    zeros = Lines("Zero", "setting", ("a", "b"), {"one": [(0, 0, 0), (0, 0, 0)]}, powers=True)
    assert draw("Title", "", [empty, zeros]).height > 500


def places(lines: Lines) -> list[float]:
    """Rows of the picture in which the points stand."""
    image = np.asarray(draw("", "", [lines]))
    dots = (image == COLOURS[0]).all(axis=-1)
    dots[:, :110] = False  # the legend's
    step = (1280 - 32 - 16 - 96) / len(lines.settings)
    columns = [round(96 + step * (i + 0.5)) for i in range(len(lines.settings))]
    return [float(np.flatnonzero(dots[:, x]).mean()) for x in columns]


def test_points_stand_where_their_values_are() -> None:
    values = [(v, v, v) for v in (1.0, 2.0, 4.0)]
    first, second, third = places(Lines("", "", ("a", "b", "c"), {"s": values}))
    assert second - third == pytest.approx(2 * (first - second), abs=4)
    first, second, third = places(Lines("", "", ("a", "b", "c"), {"s": values}, powers=True))
    assert second - third == pytest.approx(first - second, abs=4)


@pytest.mark.parametrize("end", [0.003, 1, 7.5, 99, 1754])
def test_marks_are_few_round_and_inside(end: float) -> None:
    found = list(marks(end, 5))
    assert 3 <= len(found) <= 6 and found[0] == 0 and found[-1] <= end * (1 + 1e-9)


def test_heat_goes_from_the_lowest_to_the_highest_score() -> None:
    found = heat(np.array([[0.0, 1.0], [3.0, 4.0]]))
    assert (found[0, 0] == COLD).all() and (found[1, 1] == WARM).all()
    assert (np.diff(found.reshape(-1, 3)[:, 0].astype(int)) > 0).all()
    assert (heat(np.ones((2, 2))) == COLD).all()


def test_heat_maps_show_every_score_and_what_is_kept() -> None:
    frames = tuple(
        Frame(f"unit {i}", np.zeros((8, 8, 3), np.uint8), 4 * i, (2, 2)) for i in range(6)
    )
    kept = np.arange(24) == 0
    maps = HeatMaps(
        "Maps", frames, {"a": (np.arange(24.0), kept), "b": (np.arange(24.0), ~kept)}, 1
    )
    assert [frame.name for frame in maps.shown] == ["unit 0", "unit 1", "unit 3", "unit 4"]
    image = np.asarray(maps._drawn(frames[0], "a"))
    outline = (image == KEPT).all(axis=-1)
    half = maps.cell
    assert outline[:half, :half].any() and not outline[half:].any()
    assert draw("T", "", [maps]).height >= maps.height
