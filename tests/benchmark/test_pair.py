"""A pair's ways of decoding are measured on the same texts."""

import json

import numpy as np
import pytest
from support import pairs

from hippo_jax.benchmark import pair
from hippo_jax.cli import main as program
from hippo_jax.placement.pair import ModelPair

NEW_TOKENS, GAMMA = 9, 3


@pytest.fixture(scope="module")
def outcome() -> dict:
    """A small random pair: one prompt with two frames for each of the embedded clips."""
    weights = pairs.weights(1)
    models = ModelPair(pairs.build(weights), pairs.build(pairs.noisy(weights, 0.1, 2)))
    prompts = iter([pairs.prompts(np.random.default_rng(seed), 1) for seed in range(3)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair, "load_pair", lambda name: models)
        patch.setattr(pair, "prepare_inputs", lambda *_: next(prompts))
        return pair.compare_pair(
            pair="tiny", new_tokens=NEW_TOKENS, repeats=1, gamma=GAMMA, report=lambda line: None
        )


def test_every_way_gives_the_targets_tokens(outcome: dict) -> None:
    assert outcome["same_tokens"] is True
    ways = (pair.PLAIN, pair.DRAFT, *pair.WAYS)
    assert outcome["tokens"] == dict.fromkeys(ways, 3 * NEW_TOKENS)
    assert outcome["visual_tokens"] == 8 and outcome["kept_visual_tokens"] == 1
    json.dumps(outcome, allow_nan=False)


def test_figures_hang_together(outcome: dict) -> None:
    plain = outcome["results"][pair.PLAIN]
    for name, found in outcome["results"].items():
        median = {what: summary["median"] for what, summary in found.items()}
        decode = (NEW_TOKENS - 1) * median["decode_ms_per_token"] / 1e3
        assert median["whole_s"] == pytest.approx(median["prefill_s"] + decode)
        assert outcome["speed"][name]["whole"] == pytest.approx(
            plain["whole_s"]["median"] / median["whole_s"]
        )
    for name in pair.WAYS:
        found = outcome["results"][name]
        per_round = found["decode_ms_per_round"]["median"] / found["decode_ms_per_token"]["median"]
        assert outcome["tokens_per_round"][name] == pytest.approx(per_round)
        assert 1 <= per_round <= (GAMMA if name == "parallel" else GAMMA + 1)


def test_the_table_shows_every_way_and_step(outcome: dict) -> None:
    assert list(outcome["steps"]) == [
        "target, 1 token",
        f"target, {GAMMA + 1} tokens",
        "draft, 1 token",
        "draft, 1 token, pruned",
    ]
    table = pair.as_table(outcome)
    for name in (*outcome["results"], *outcome["steps"]):
        assert f"| {name} |" in table
    assert "same tokens as the target alone: yes" in table


def test_other_tokens_would_be_told_on() -> None:
    said = {name: pair.Answers([[1, 2], [3]]) for name in (pair.PLAIN, *pair.WAYS)}
    said[pair.DRAFT] = pair.Answers([[7], [7]])  # its own text is nobody's business
    assert pair.same_tokens(said)
    said["parallel"] = pair.Answers([[1, 2], [4]])
    assert not pair.same_tokens(said)


@pytest.mark.slow
def test_the_embedded_pair(capsys) -> None:
    assert program.main(["bench", "--pair", "demo", "--repeats", "1", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["same_tokens"] is True
    assert outcome["visual_tokens"] == 324 and outcome["kept_visual_tokens"] == 33
    assert 3 * 37 <= outcome["tokens"][pair.PLAIN] <= 3 * 87  # captions end where they end
