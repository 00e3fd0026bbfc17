"""Lines that survive kills, and an evaluation that is not mixed with another."""

import json
from pathlib import Path

import pytest

from hippo_jax.errors import HippoError
from hippo_jax.evaluation import results
from hippo_jax.evaluation.results import Share, open_evaluation, opened, read_all, read_rows

MANIFEST = {
    "benchmark": "mine",
    "samples": {},
    "settings": {"gamma": 5, "fps": None},
    "sizes": (1, 2),
}


def test_a_torn_line_is_cut_off_and_the_next_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / Share().name
    with opened(tmp_path, Share()) as found:
        found.append({"index": 0, "text": "Grüße\n"})
    with file.open("ab") as stream:
        stream.write(b'{"index": 1, "te')
    assert read_rows(file) == {0: {"index": 0, "text": "Grüße\n"}}
    with opened(tmp_path, Share()) as found:
        found.append({"index": 2})
    assert [json.loads(line)["index"] for line in file.read_text().splitlines()] == [0, 2]


def test_a_file_that_is_torn_from_its_first_line_on(tmp_path: Path) -> None:
    (tmp_path / Share().name).write_bytes(b'{"index"')
    with opened(tmp_path, Share()):
        assert (tmp_path / Share().name).read_bytes() == b""


@pytest.mark.parametrize("damage", ["{", "[]", '{"id": 1}', "\0\0"])
def test_a_damaged_line_before_the_last_is_named(tmp_path: Path, damage: str) -> None:
    file = tmp_path / Share().name
    file.write_text(f'{{"index": 0}}\n{damage}\n{{"index": 2}}\n')
    with pytest.raises(HippoError, match=r"results\.0-of-1\.jsonl, line 2 is damaged"):
        read_rows(file)


def test_the_last_line_of_a_sample_counts(tmp_path: Path) -> None:
    with opened(tmp_path, Share()) as found:
        for row in ({"index": 0, "error": "x"}, {"index": 0, "error": None}):
            found.append(row)
    assert read_rows(tmp_path / Share().name)[0]["error"] is None


def test_rows_of_all_processes_come_in_the_order_of_the_samples(tmp_path: Path) -> None:
    for index, own in ((0, (0, 2)), (1, (3, 1))):
        with opened(tmp_path, Share(index, 2)) as found:
            for place in own:
                found.append({"index": place})
    assert list(read_all(tmp_path)) == [0, 1, 2, 3]


def test_the_same_evaluation_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    open_evaluation(out, MANIFEST)
    open_evaluation(out, MANIFEST)
    other = {**MANIFEST, "settings": {"gamma": 4, "fps": None}}
    with pytest.raises(HippoError) as caught:
        open_evaluation(out, other)
    assert "settings.gamma was 5 and is now 4; choose another --out" in str(caught.value)
    with pytest.raises(HippoError, match="sizes was"):
        open_evaluation(out, {**MANIFEST, "sizes": (1, 3)})
    with pytest.raises(HippoError, match="new was null and is now 1"):
        open_evaluation(out, {**MANIFEST, "new": 1})
    for text, said in (("{", "cannot be read"), ("{}", "is damaged"), ("[]", "is damaged")):
        (out / results.MANIFEST).write_text(text)
        with pytest.raises(HippoError, match=said):
            open_evaluation(out, MANIFEST)


def test_results_of_unknown_origin_are_not_added_to(tmp_path: Path) -> None:
    (tmp_path / Share().name).write_text("")
    with pytest.raises(HippoError, match="has results and no manifest"):
        open_evaluation(tmp_path, MANIFEST)
    (tmp_path / "file").write_text("")
    with pytest.raises(HippoError, match="cannot be a folder"):
        open_evaluation(tmp_path / "file", MANIFEST)


def test_one_writer_a_file_and_one_number_of_processes(tmp_path: Path) -> None:
    second = opened(tmp_path, Share())
    with (
        opened(tmp_path, Share()),
        pytest.raises(HippoError, match="another process is writing it"),
        second,
    ):
        pass
    other = opened(tmp_path, Share(0, 2))
    with pytest.raises(HippoError, match="of a run with another number of processes"), other:
        pass
