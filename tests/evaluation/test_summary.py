"""Figures made of lines, by hand where they can be; speed and quality apart."""

import json
from typing import Any

import numpy as np
import pytest

from hippo_jax.evaluation.charts import picture
from hippo_jax.evaluation.report import as_markdown
from hippo_jax.evaluation.summary import speedup, summarize

MANIFEST = {
    "benchmark": "mine",
    "samples": {"count": 6},
    "pair": {"name": "demo", "dtype": "float32"},
    "settings": {
        "config": {"schedule": "parallel", "gamma": 5, "keep_ratio": 0.1},
        "max_new_tokens": 8,
        "replicas": 1,
        "batch": 2,
    },
    "machine": {"device": "a CPU", "cores": 2, "jax": "0.10"},
}


def line(index: int, **fields: Any) -> dict[str, Any]:
    return {"index": index, "id": f"s{index}", "kind": "caption", "error": None, **fields}


def caption(
    index: int,
    runs: tuple[int, ...],
    hippo: float,
    plain: float | None,
    batch: int | None = None,
    same: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Eight tokens in two rounds, of which the draft proposed six and five were taken."""
    seconds = {"prepare": 9.0, "hippo": hippo} | ({} if plain is None else {"plain": plain})
    return line(
        index,
        tasks=["all"],
        tokens=[1] * 8,
        visual_tokens=300,
        kept_visual_tokens=30,
        stats={
            "rounds": 2,
            "round_tokens": 7,
            "accepted": 5,
            "judged": 6,
            "runs": list(runs),
        },
        seconds=seconds,
        batch=index if batch is None else batch,
        plain={"equal": True} if plain is not None and same is None else same,
    )


def choice(index: int, answer: str | None, letter: str | None, rule: str, *tasks: str) -> Any:
    whole = caption(index, (), 1.0, None)
    return {
        **whole,
        "kind": "choice",
        "tasks": list(tasks),
        "answer": answer,
        "letter": letter,
        "rule": rule,
    }


def test_speed_is_pooled_over_captions_alone() -> None:
    rows = [
        caption(0, (3, 1), 1.0, 2.0),
        caption(1, (5,), 3.0, 4.0),
        choice(2, "A", "A", "letter", "all"),
        line(3, error="no such file"),
    ]
    found = summarize(rows, MANIFEST)
    speed = found["speed"]
    assert speed["samples"] == 2 and speed["tokens"] == 16
    assert speed["mat"] == 3.0 and speed["mat_with_correction"] == 4.0
    assert speed["tokens_per_round"] == 3.5
    assert speed["acceptance_rate"] == pytest.approx(5 / 6)
    assert speed["tokens_per_second"] == 4.0 and speed["plain_tokens_per_second"] == 16 / 6
    assert speed["speedup"] == 1.5
    assert found["errors"] == [{"id": "s3", "error": "no such file"}]
    assert found["quality"]["all"]["questions"] == 1 and found["quality"]["tasks"] == {}


def test_questions_alone_have_no_speed_and_captions_no_quality() -> None:
    asked = summarize([choice(0, "A", "A", "letter", "all")], MANIFEST)
    assert asked["speed"] is None and asked["quality"] is not None
    told = summarize([caption(0, (1,), 1.0, None)], MANIFEST)
    assert told["quality"] is None and "speedup" not in told["speed"] and told["check"] is None
    assert "Quality" not in as_markdown(told) and "Speed" not in as_markdown(asked)


def test_accuracy_by_task_and_by_the_rule_of_the_benchmark() -> None:
    rows = [
        choice(0, "A", "A", "lvbench", "x", "y"),
        choice(1, "A", "B", "lvbench", "x"),
        choice(2, "A", None, "lvbench", "y"),  # counts as wrong
        choice(3, None, "C", "lvbench", "y"),  # nobody knows
    ]
    quality = summarize(rows, MANIFEST)["quality"]
    assert quality["tasks"]["x"]["accuracy"] == 0.5
    y = {"questions": 3, "counted": 2, "right": 1, "no_letter": 1, "accuracy": 0.5}
    assert quality["tasks"]["y"] == y
    assert quality["all"]["accuracy"] == 1 / 3 and quality["mean_of_tasks"] == 0.5
    for row in rows:
        row["rule"] = "videomme"  # whose script leaves out what it cannot read
    assert summarize(rows, MANIFEST)["quality"]["all"]["accuracy"] == 0.5


def test_the_interval_is_over_calls_and_always_the_same() -> None:
    times = np.random.default_rng(1).uniform(1, 3, 40)
    rows = [caption(i, (1,), 1.0, float(t)) for i, t in enumerate(times)]
    ratio, interval = speedup(rows)
    assert ratio == pytest.approx(times.mean())
    error = times.std(ddof=1) / np.sqrt(len(times))
    assert interval is not None
    assert interval == pytest.approx([ratio - 1.96 * error, ratio + 1.96 * error], abs=0.03)
    assert speedup(rows) == (ratio, interval)
    together = [{**row, "batch": row["index"] // 20} for row in rows]
    assert speedup(together)[0] == pytest.approx(ratio)
    first, second = times[:20].mean(), times[20:].mean()  # two calls: nothing in between
    assert speedup(together)[1] == pytest.approx(sorted((first, second)))
    assert speedup(rows[:1])[1] is None


def test_the_first_difference_is_told() -> None:
    other = {"equal": False, "place": 2, "plain_token": 7, "token": None}
    rows = [caption(0, (1,), 1.0, 2.0), caption(1, (1,), 1.0, 2.0, same=other)]
    check = summarize(rows, MANIFEST)["check"]
    assert check == {"compared": 2, "equal": 1, "first": {"id": "s1", **other}}
    said = as_markdown(summarize(rows, MANIFEST))
    assert "1 of 2 answers" in said and "s1, from token 3 on (plain 7, HIPPO None)" in said


def test_nothing_counted_is_said_as_such() -> None:
    row = caption(0, (), 1.0, None)
    row["stats"] = dict.fromkeys(("rounds", "round_tokens", "accepted", "judged"), 0) | {"runs": []}
    found = summarize([row], MANIFEST)
    assert found["speed"]["mat"] is None
    json.dumps(found, allow_nan=False)
    assert "| ? |" in as_markdown(found)


def test_tables_and_picture_hold_whatever_is_in_them() -> None:
    rows = [
        *(caption(i, (i, 2), 1.0, 1.0 + i) for i in range(3)),
        choice(3, "A", "A", "letter", "a task | with a bar"),
        choice(4, "A", None, "videomme", "unread"),
        line(5, error="broken |\nfile"),
    ]
    found = summarize(rows, MANIFEST)
    table = as_markdown(found)
    assert "| s5 | broken \\| file |" in table and "a task \\| with a bar" in table
    assert "2.00 (1.00 to 3.00)" in table
    whole = picture(found, rows)
    only_captions = picture(summarize(rows[:3], MANIFEST), rows[:3])
    assert whole is not None and only_captions is not None
    assert whole.height > only_captions.height
    assert len(whole.getcolors(1 << 20)) > 5
    nothing = [line(0, error="x")]
    assert picture(summarize(nothing, MANIFEST), nothing) is None
