"""Small pairs of every family from their directories: ``stream``, ``warmup``, ``plan_schedule`` and
``hippo generate``."""

import contextlib
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from inputs import golden_cases
from PIL import Image
from support.small_sizes import FAMILY_PAIRS, save_pair

import hippo_jax as hj
from hippo_jax.architectures.registry import FAMILIES as REGISTERED
from hippo_jax.cli import main as program
from hippo_jax.scheduling.hippo import _hippo_generate

COMPILED = "/jax/core/compile/backend_compile_duration"
CLIP = (20, 8, 60, 90)  # frames(...) arguments
PROMPT, NEW = "What moves?", 16
CONFIG = hj.HippoConfig(gamma=3, keep_ratio=0.3, schedule="sequential")
FAMILIES = [
    pytest.param(family, marks=() if family == "qwen2_vl" else pytest.mark.slow)
    for family in FAMILY_PAIRS
]


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory) -> hj.ModelPair:
    target, draft = save_pair(request.param, tmp_path_factory.mktemp(request.param))
    found = hj.load_pair(target=target, draft=draft, dtype="float32")
    configs = found.target.config, found.draft.config
    assert configs[0].text.vocab_size != configs[1].text.vocab_size
    assert configs[0].vision.hidden_size != configs[1].vision.hidden_size
    return found


def asked(pair: hj.ModelPair, seed: int = CLIP[0]) -> hj.ModelInputs:
    video = hj.Video(golden_cases.frames(seed, *CLIP[1:]), 2.0)
    return hj.prepare_inputs(pair, video, PROMPT)


def answer(pair: hj.ModelPair, inputs: hj.ModelInputs) -> hj.Generation:
    return hj.hippo_generate(pair, inputs, max_new_tokens=NEW, config=CONFIG)


def test_every_family_has_a_pair() -> None:
    assert set(FAMILY_PAIRS) == set(REGISTERED)


def test_a_warm_pair_compiles_nothing(pair) -> None:
    """After ``warmup`` with a clip of that size, other frames and words of that length find all
    programs."""
    before = _hippo_generate._cache_size()
    hj.warmup(pair, CLIP[1:], "What stops?", max_new_tokens=NEW, config=CONFIG)
    assert _hippo_generate._cache_size() == before + 1
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event == COMPILED:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        found = answer(pair, asked(pair))
        jax.block_until_ready(found)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    assert float(found.stats.acceptance_rate) > 0.1


def test_pieces_are_the_text(pair) -> None:
    inputs = asked(pair)
    pieces = list(hj.stream(pair, inputs, max_new_tokens=NEW, config=CONFIG))
    assert "".join(pieces) == answer(pair, inputs).text(pair.tokenizer)[0]
    assert len(pieces) > 1 and all(pieces)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is expected to be faster")
def test_a_plan_leaves_nothing_open(pair) -> None:
    inputs = asked(pair)
    found = hj.plan_schedule(pair, inputs, max_new_tokens=NEW)
    assert found.schedule in ("sequential", "parallel")
    assert isinstance(found.gamma, int) and 1 <= found.gamma <= 16
    assert "auto" not in vars(found).values()
    planned = hj.hippo_generate(pair, inputs, max_new_tokens=NEW, config=found)
    np.testing.assert_array_equal(planned.tokens, answer(pair, inputs).tokens)


@pytest.mark.slow
def test_the_program(pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of frames and two directories in; the tokens of the library out."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, frame in enumerate(golden_cases.frames(*CLIP)):
        Image.fromarray(frame).save(frames / f"{number}.png")
    models = ("--target", str(pair.target.source), "--draft", str(pair.draft.source))
    limits = ("--max-new-tokens", str(NEW), "--dtype", "float32")
    expected = answer(pair, asked(pair))
    for schedule in ("sequential", "parallel", "autoregressive"):
        chosen = ("--gamma", "3", "--keep-ratio", "0.3") if schedule != "autoregressive" else ()
        words = ("generate", str(frames), PROMPT, "--fps", "2", "--schedule", schedule, *chosen)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = program.main([*words, *models, *limits, "--json"])
        assert (status, err.getvalue()) == (0, "")
        said = json.loads(out.getvalue())
        assert said["tokens"] == np.asarray(expected.tokens[0])[: expected.lengths[0]].tolist()
        assert said["text"] == expected.text(pair.tokenizer)[0]
        assert (said["schedule"], said["visual_tokens"]) == (
            schedule,
            int(asked(pair).visual_tokens[0]),
        )
