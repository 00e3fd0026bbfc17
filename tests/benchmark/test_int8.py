"""What int8 weights change is measured where the target's own tokens are chosen."""

import json

import numpy as np
import pytest
from support import checks_int8
from support.oracles import close

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.architectures.parameters import values
from hippo_jax.benchmark import acceptance, int8
from hippo_jax.cli.main import main
from hippo_jax.inputs.model_inputs import Row, assemble


def test_distances_of_logits() -> None:
    first = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    second = np.log([[0.25, 0.5, 0.25], [0.1, 0.2, 0.7]])
    second[1] += 1  # which a softmax does not see
    found = int8.distances(first, second)
    np.testing.assert_allclose(found["largest"], [np.log(2), 1])
    np.testing.assert_allclose(found["mean"], [np.log(4) / 3, 1])
    assert found["same_top"].tolist() == [False, True]
    np.testing.assert_allclose(found["kl"], [0.25 * np.log(2), 0], atol=1e-12)


@pytest.mark.slow
def test_logits_that_choose_an_answer() -> None:
    """As teacher-forced logits of prompt and answer together, before each token of it."""
    model, rng = checks_int8.wide(), np.random.default_rng(1)
    prompts = [rng.integers(1, 27, n).astype(np.int32) for n in (9, 5)]
    answer = rng.integers(1, 27, (2, 6)).astype(np.int32)
    inputs = assemble(model, [Row(ids, []) for ids in prompts])
    got = int8.answer_logits(model, inputs, answer)
    whole = [np.concatenate(parts) for parts in zip(prompts, answer, strict=True)]
    columns = np.stack([np.arange(len(ids) - 1, len(ids) + 5) for ids in prompts])
    rows = [Row(ids, []) for ids in whole]
    close(got, model(assemble(model, rows), positions=columns), 2e-5)


@pytest.fixture(scope="module")
def outcome() -> dict:
    """One clip, one schedule, answers of eight tokens."""
    pair = hj.load_pair("demo")
    small = hj.load_pair("demo", quantize_target="int8", quantize_draft="int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "SCHEDULES", ("sequential",))
        patch.setattr(int8, "NEW_TOKENS", 8)
        found = int8.measure_int8(pair, small, [resources.clip()], ["Describe the video."])
    json.dumps(found, allow_nan=False)
    sizes = {
        role: {
            kind: sum(array.nbytes for array in values(getattr(which, role)).values())
            for kind, which in (("float", pair), ("int8", small))
        }
        for role in ("target", "draft")
    }
    assert found["weights"] == sizes
    return found


@pytest.mark.slow
def test_the_demo_pair(outcome: dict) -> None:
    assert [(row["target"], row["draft"]) for row in outcome["acceptance"]] == [
        ("float", "float"),
        ("float", "int8"),
        ("int8", "float"),
        ("int8", "int8"),
    ]
    for found in outcome["logits"].values():
        assert found["positions"] == 8
        assert 0 < found["mean_difference"] < found["largest_difference"] < 1
        assert 0 < found["mean_kl_nats"] < 0.01


def test_the_table() -> None:
    figures = {"acceptance_rate": 0.5, "acceptance_error": None, "tokens_per_round": 3.0}
    row = {"target": "int8", "draft": "float"} | dict.fromkeys(acceptance.SCHEDULES, figures)
    logits = {"largest_difference": 0.5, "mean_difference": 0.01, "same_top_token": 0.995}
    logits |= {"positions": 50, "mean_kl_nats": 1e-5}
    outcome = {
        "machine": {"device": "a CPU", "cores": 2, "jax": "1.0"},
        "clips": 3,
        "gamma": 4,
        "same_answers": 2,
        "weights": {role: {"float": 2**22, "int8": 2**20} for role in int8.ROLES},
        "logits": dict.fromkeys(int8.ROLES, logits),
        "acceptance": [row],
    }
    lines = int8.as_table(outcome).splitlines()
    assert "| draft | 4.0 MiB | 1.0 MiB | 0.500 | 0.0100 | 99.50 % | 1e-05 |" in lines
    assert "| int8 | float | 50.0 (?) | 50.0 (?) | 3.00 | 3.00 |" in lines
    assert "same answer to 2 of 3 clips" in " ".join(lines) and "a CPU, 2 cores" in lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pair", "other"], "--int8 knows no clips for the pair 'other'"),
        (["--clips", "0"], "at least one clip is needed"),
        (["--new-tokens", "5"], "--int8 takes no --new-tokens"),
        (["--peer", "transformers"], "--peer goes with the random model only"),
    ],
)
def test_refusals(words: list[str], said: str, capsys) -> None:
    assert main(["bench", "--int8", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1
