"""What smaller weights change is measured where the target's own tokens are chosen."""

import json

import jax
import numpy as np
import pytest
from support import checks_int8
from support.oracles import close

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.architectures.parameters import values
from hippo_jax.benchmark import acceptance, precision
from hippo_jax.cli.main import main
from hippo_jax.inputs.model_inputs import Row, assemble


def test_distances_of_logits() -> None:
    first = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    second = np.log([[0.25, 0.5, 0.25], [0.1, 0.2, 0.7]])
    second[1] += 1  # which a softmax does not see
    found = precision.distances(first, second)
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
    got = precision.answer_logits(model, inputs, answer)
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
        patch.setattr(precision, "SCHEDULES", ("sequential",))
        patch.setattr(precision, "NEW_TOKENS", 8)
        found = precision.measure_precision(
            pair,
            small,
            [resources.clip()],
            ["Describe the video."],
            kind="int8",
            reference=jax.devices("cpu")[-1],
        )
    json.dumps(found, allow_nan=False)
    sizes = {
        role: {
            kind: sum(array.nbytes for array in values(getattr(which, role)).values())
            for kind, which in (("float32", pair), ("int8", small))
        }
        for role in ("target", "draft")
    }
    assert found["weights"] == sizes
    return found


@pytest.mark.slow
def test_the_demo_pair(outcome: dict) -> None:
    assert [(row["target"], row["draft"]) for row in outcome["acceptance"]] == [
        ("float32", "float32"),
        ("float32", "int8"),
        ("int8", "float32"),
        ("int8", "int8"),
    ]
    assert outcome["as_reference"] == 1  # the same device here
    assert all(row["sequential"]["own_answers"] == 1 for row in outcome["acceptance"])
    for found in outcome["logits"].values():
        assert found["positions"] == 8
        assert 0 < found["mean_difference"] < found["largest_difference"] < 1
        assert 0 < found["mean_kl_nats"] < 0.01


def test_the_table() -> None:
    figures = {"acceptance_rate": 0.5, "acceptance_error": None, "tokens_per_round": 3.0}
    figures["own_answers"] = 2
    row = {"target": "int8", "draft": "float32"} | dict.fromkeys(acceptance.SCHEDULES, figures)
    logits = {"largest_difference": 0.5, "mean_difference": 0.01, "same_top_token": 0.995}
    logits |= {"positions": 50, "mean_kl_nats": 1e-5}
    outcome = {
        "machine": {"device": "a CPU", "cores": 2, "jax": "1.0"},
        "kind": "int8",
        "as_reference": 3,
        "clips": 3,
        "gamma": 4,
        "same_answers": 2,
        "weights": {role: {"float32": 2**22, "int8": 2**20} for role in precision.ROLES},
        "logits": dict.fromkeys(precision.ROLES, logits),
        "acceptance": [row],
    }
    lines = precision.as_table(outcome).splitlines()
    assert "| draft | 4.0 MiB | 1.0 MiB | 0.500 | 0.0100 | 99.50 % | 1e-05 |" in lines
    assert "| int8 | float32 | 50.0 (?) | 50.0 (?) | 3.00 | 3.00 | 2 | 2 |" in lines
    assert "what it says here to 3 of 3 clips" in lines[-1]
    assert "same answer to 2 of 3 clips" in " ".join(lines) and "a CPU, 2 cores" in lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pair", "other"], "--precision knows no clips for the pair 'other'"),
        (["--clips", "0"], "at least one clip is needed"),
        (["--new-tokens", "5"], "--precision takes no --new-tokens"),
        (["--peer", "transformers"], "--precision takes no --peer"),
    ],
)
def test_refusals(words: list[str], said: str, capsys) -> None:
    assert main(["bench", "--precision", "int8", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_bfloat16_is_measured_too(capsys) -> None:
    """On one clip: no answers are demanded of bfloat16, those of float32 are."""
    assert main(["bench", "--precision", "bfloat16", "--clips", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    weights = found["weights"]["target"]
    assert weights["bfloat16"] * 2 == weights["float32"]
    for row in found["acceptance"]:
        if row["target"] == "float32":
            assert row["parallel"]["own_answers"] == row["sequential"]["own_answers"] == 1
    assert 0 < found["logits"]["target"]["mean_difference"] < 1
