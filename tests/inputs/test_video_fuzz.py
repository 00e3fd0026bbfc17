"""Damaged files end as a video or a HippoError, soon (fuzz_video.py says how)."""

import pytest
from inputs import fuzz_video


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files(count):
    outcomes, failures = fuzz_video.fuzz(count, seed=count, seconds=10)
    assert failures == []
    assert outcomes["0"] + outcomes["2"] == count
    # Both ends must be reached, or the damage is too small or too large to test anything.
    assert outcomes["0"] > count // 20 and outcomes["2"] > count // 5


def test_the_watchdog_sees_hangs_and_deaths(monkeypatch, tmp_path):
    # A child that dies at 1, hangs at 3, and reports a failure at 4.
    script = tmp_path / "fuzz_video.py"
    script.write_text(
        "import os, sys, time\n"
        "first, count = int(sys.argv[2]), int(sys.argv[4])\n"
        "for number in range(first, count):\n"
        "    print('start', number, flush=True)\n"
        "    if number == 1: os._exit(9)\n"
        "    if number == 3: time.sleep(60)\n"
        "    print('done', number, 1 if number == 4 else 0, 'text', flush=True)\n"
    )
    monkeypatch.setattr(fuzz_video, "HERE", tmp_path)
    monkeypatch.setattr(fuzz_video, "seeds_files", lambda folder: [])
    outcomes, failures = fuzz_video.fuzz(6, seed=0, seconds=0.5)
    assert [failure.partition(":")[0] for failure in failures] == ["1", "3", "4"]
    assert outcomes["0"] == 3 and outcomes["1"] == 1
