"""The peer does the same work on the same numbers, and its draft sees the video."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import tiny
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from hippo_jax.architectures.int8 import with_int8_kernels
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark import peer_transformers as peers
from hippo_jax.benchmark.peer_hooks import say
from hippo_jax.benchmark.peer_model import TransformersPeer
from hippo_jax.benchmark.peer_ways import Clock, assisted, compiled, looked_up, plain
from hippo_jax.benchmark.script import Script
from hippo_jax.errors import HippoError

NEW = 24
WINDOW = 5


@functools.cache
def target() -> TransformersPeer:
    return TransformersPeer(tiny.model())


@functools.cache
def draft_model(vocab_size: int = tiny.VOCAB) -> VideoLM:
    """Another width of the decoder and of the vision tower, other weights."""
    sizes = tiny.hf_config().to_dict()
    rope = dict(sizes["text_config"]["rope_parameters"], mrope_section=[2, 2, 2])
    sizes["text_config"].update(hidden_size=48, rope_parameters=rope, vocab_size=vocab_size)
    sizes["vision_config"].update(hidden_size=16, out_hidden_size=48)
    hf = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**sizes)).eval().float()
    tiny.perturb(hf, 3)
    return tiny.convert(hf)


def said(way, prompt, window: int = 0) -> tuple[list[int], int]:
    """New tokens, and how often the target gave some."""
    clock = Clock()
    with torch.inference_mode():
        ids = way(prompt, window, clock)
    return ids[0, prompt["input_ids"].shape[1] :].tolist(), len(clock.seconds) - 1


def plain_tokens(peer: TransformersPeer, row=None) -> list[int]:
    return said(plain(peer, NEW), peer.inputs(row or tiny.video_row()))[0]


def forwards(peer: TransformersPeer, calls: list):
    """The ids of every forward, as long as the handle stands."""
    return peer.model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs["input_ids"][0].tolist()),
        with_kwargs=True,
    )


@pytest.mark.parametrize("number", range(4))
def test_plain_answers_are_those_of_an_untouched_model(number: int) -> None:
    row = tiny.batch_rows()[number]
    inputs = tiny.hf_inputs([row])
    oracle = tiny.hf_model().generate(**inputs, max_new_tokens=NEW, do_sample=False)
    assert plain_tokens(target(), row) == oracle[0, len(row.ids) :].tolist()


def test_weights_too_large_for_two_copies_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    model, row = tiny.model(), tiny.video_row()
    own = {array.unsafe_buffer_pointer() for array in values(model).values()}
    sharing = TransformersPeer(model, share=True)
    theirs = {parameter.data_ptr() for parameter in sharing.model.parameters()}
    assert theirs <= own and sharing.shared and not target().shared
    assert not {parameter.data_ptr() for parameter in target().model.parameters()} & own
    assert plain_tokens(sharing, row) == plain_tokens(target(), row)
    size = sum(array.nbytes for array in values(model).values())
    for held, shared in ((5 * size, False), (3 * size, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda held=held: (0, held))
        assert peers._too_large(torch, model, "cuda") is shared
        assert not peers._too_large(torch, model, "cpu")


def test_a_draft_that_sees_the_video_is_accepted() -> None:
    """A draft of identical weights: all is accepted, so a forward settles the window and one."""
    prompt, same = target().inputs(tiny.video_row()), TransformersPeer(tiny.model())
    calls: list = []
    handle = forwards(target(), calls)
    tokens, settled = said(assisted(target(), same, NEW), prompt, WINDOW)
    handle.remove()
    assert tokens == plain_tokens(target())
    assert len(calls) == settled == NEW // (WINDOW + 1)
    # As transformers does it by itself, which is what the hook is for.
    blind, settled = [], 0
    handle = forwards(target(), blind)
    with torch.inference_mode():
        target().model.generate(**prompt, max_new_tokens=NEW, assistant_model=same.model)
    handle.remove()
    assert len(blind) > 2 * len(calls)


def test_the_draft_proposes_what_it_would_answer_itself() -> None:
    """With its own tower, of another width, and at the prompt's positions."""
    draft, row = TransformersPeer(draft_model()), tiny.video_row()
    own = plain_tokens(draft)
    other = plain_tokens(draft, replace(row, media=(tiny.media("video", (3, 10, 6), 1.5, 9),)))
    assert own[:WINDOW] != other[:WINDOW]  # it looks at the pixels
    calls: list = []
    handle = forwards(target(), calls)
    tokens, _ = said(assisted(target(), draft, NEW), target().inputs(row), WINDOW)
    handle.remove()
    assert calls[0] == [*row.ids.tolist(), *own[:WINDOW]]
    assert tokens == plain_tokens(target())


def test_a_draft_that_says_placeholders_is_kept_from_it() -> None:
    draft = TransformersPeer(tiny.model())
    say(draft, np.full(512, tiny.VIDEO))
    tokens, _ = said(assisted(target(), draft, NEW), target().inputs(tiny.video_row()), WINDOW)
    assert tokens == plain_tokens(target())


def test_prompt_lookup_proposes_no_placeholders() -> None:
    """What followed the last token before is the video."""
    row = tiny.prompt(7, tiny.media("video", (2, 4, 4)), 5, 7)
    calls: list = []
    handle = forwards(target(), calls)
    tokens, settled = said(looked_up(target(), NEW), target().inputs(row), WINDOW)
    handle.remove()
    assert calls[0] == [*row.ids.tolist(), tiny.START]
    assert tokens == plain_tokens(target(), row)
    assert len(calls) == settled


def windows(agree: Sequence[bool], window: int) -> int:
    """Forwards that settle one token for each entry of ``agree`` when the draft is right there."""
    done = rounds = 0
    while done < len(agree):
        proposed = min(window, len(agree) - done - 1)
        right = 0
        while right < proposed and agree[done + right]:
            right += 1
        done, rounds = done + right + 1, rounds + 1
    return rounds


def script(seed: int = 0) -> Script:
    rng = np.random.default_rng(seed)
    texts = rng.integers(0, 180, (2, 400)).astype(np.int32)
    return Script(texts[0], np.where(rng.random(400) < 0.7, texts[0], texts[1]))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting of each way, and none compiled."""
    monkeypatch.setattr(peers, "WINDOWS", (WINDOW,))
    monkeypatch.setattr(peers, "TRIALS", 1)
    monkeypatch.setattr(peers, "cores", lambda: 1)

    def refuses(*args: object, **keywords: object) -> None:
        raise RuntimeError("No working C++ compiler\nfound in a list")

    monkeypatch.setattr(torch, "compile", refuses)


def test_a_script_is_said_and_decides_what_is_accepted(few: None) -> None:
    rows, texts = [tiny.video_row(), tiny.batch_rows()[1]], script()
    found = peers.transformers_ways(
        tiny.model("largest"), draft_model(), rows, NEW, stop=False, script=texts, report=print
    )
    starts = [int(tiny.inputs([row], "largest").next_position[0]) for row in rows]
    # The first answer is what was said behind the prompt's last token.
    spans = [slice(start - 1, start - 1 + NEW) for start in starts]
    answers = [texts.target[span].tolist() for span in spans]
    (assisted_row,) = [name for name in found.runs if name.startswith(peers.ASSISTED)]
    for name, run in found.runs.items():
        times = run()
        assert 0 < times["prefill_s"] < times["whole_s"]
        behind = times["decode_ms_per_token"] * (NEW - 1) / 1e3
        assert times["prefill_s"] + behind == pytest.approx(times["whole_s"])
        assert found.answers[name].tokens == answers
    agree = [(texts.target == texts.draft)[span] for span in spans]
    assert found.answers[assisted_row].rounds == sum(windows(one, WINDOW) for one in agree)
    assert f"{WINDOW} tokens, 1 thread" in assisted_row
    assert found.settings["rows"][assisted_row] == {"window": WINDOW, "threads": 1}
    assert found.missing == {
        peers.LOOKUP: "the text is made up, so looking it up in the prompt says nothing",
        peers.COMPILED: "RuntimeError: No working C++ compiler",
    }


def test_answers_end_behind_an_end_token_only_if_asked(few: None) -> None:
    whole = plain_tokens(target())
    model = tiny.convert(tiny.hf_model())
    unsaid = next(token for token in range(tiny.VOCAB) if token not in whole)
    model.config = replace(model.config, eos_token_ids=(unsaid, whole[5]))
    until = whole[: whole.index(whole[5]) + 1]
    for stop, expected in ((True, until), (False, whole)):
        found = peers.transformers_ways(model, None, [tiny.video_row()], NEW, stop=stop)
        for name, run in found.runs.items():
            run()
            assert found.answers[name].tokens == [expected]
        assert sorted(found.missing) == [peers.ASSISTED, peers.COMPILED]
        assert found.missing[peers.ASSISTED] == "there is no draft"


def test_the_setting_with_the_shortest_turn_is_chosen(
    few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows with all threads first, then the other number of threads with the best of them."""
    seconds = {(3, 4): 5.0, (5, 4): 3.0, (8, 4): 4.0, (5, 1): 2.0}
    tried: list = []

    def turn(torch, way, prompts, window, threads, answers):
        tried.append((window, threads))
        return lambda: {"whole_s": seconds[window, threads]}

    monkeypatch.setattr(peers, "turn", turn)
    monkeypatch.setattr(peers, "cores", lambda: 4)
    prompt = target().inputs(tiny.video_row())
    best = peers._best(torch, lambda *given: None, [prompt], (3, 5, 8))
    assert best == peers.Setting(window=5, threads=1)
    assert list(dict.fromkeys(tried)) == list(seconds)
    assert peers.Setting(0, 4).row("way") == "way, 4 threads"


def test_threads_are_set_for_a_turn_only(few: None) -> None:
    before, inside = torch.get_num_threads(), []

    def way(prompt, window, clock):
        inside.append(torch.get_num_threads())
        clock.seconds += [0.0, 0.0]
        return torch.zeros(1, 9)

    prompt = {"input_ids": torch.zeros(1, 4)}
    peers.turn(torch, way, [prompt], 0, before + 1, peers.Answers())()
    assert inside == [before + 1] and torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text[:20], "the script ends before position"),
        (lambda text: np.full_like(text, tiny.VIDEO), "placeholders"),
        (lambda text: np.full_like(text, tiny.VOCAB), "beyond the 200"),
    ],
)
def test_a_script_that_cannot_be_said_is_one_line(change, problem: str) -> None:
    texts = script()
    wrong = Script(texts.target, change(texts.draft))
    with pytest.raises(HippoError, match=problem):
        peers.transformers_ways(
            tiny.model(), tiny.model(), [tiny.video_row()], NEW, stop=False, script=wrong
        )


def test_other_families_and_int8_are_one_line() -> None:
    other = replace(tiny.model().config, family="llava_onevision")
    with pytest.raises(HippoError, match=r"Qwen2\.5-VL only"):
        TransformersPeer(SimpleNamespace(config=other))
    with pytest.raises(HippoError, match="int8"):
        TransformersPeer(with_int8_kernels(tiny.convert(tiny.hf_model())))


def test_models_of_two_vocabularies_are_not_assisted(few: None) -> None:
    found = peers.transformers_ways(
        tiny.model(), draft_model(208), [tiny.video_row()], 2, stop=False
    )
    assert "vocabularies of one size" in found.missing[peers.ASSISTED]


@pytest.mark.slow
@pytest.mark.parametrize("scripted", [False, True])
def test_compiled_answers_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, scripted: bool
) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setattr(peers, "TRIALS", 1)
    monkeypatch.setattr(peers, "cores", lambda: 1)
    rows, peer = [tiny.batch_rows()[1], tiny.video_row()], TransformersPeer(tiny.model())
    assert len(rows[0].ids) < len(rows[1].ids)
    if scripted:
        say(peer, script().target)
    prompts = [peer.inputs(row) for row in rows]
    expected = [plain_tokens(peer, row) for row in rows]
    assert (expected == [plain_tokens(target(), row) for row in rows]) is not scripted
    counters.clear()
    way = compiled(peer, NEW)
    best = peers._best(torch, way, prompts, (0,))
    frames = counters["frames"]["ok"]
    assert frames
    answers = peers.Answers()
    peers.turn(torch, way, prompts, best.window, best.threads, answers)()
    assert answers.tokens == expected and answers.rounds == 0
    assert counters["frames"]["ok"] == frames  # nothing is compiled in a measured turn


@pytest.mark.slow
def test_the_embedded_pair_answers_as_it_does_here(few: None) -> None:
    import hippo_jax
    from hippo_jax.inputs.prepare import prepare_rows
    from hippo_jax.resources import clip

    pair = hippo_jax.load_pair("demo")
    videos = [str(clip("shapes_1")), str(clip("shapes_2"))]
    rows = prepare_rows(pair.target, videos, "Describe the video.")
    inputs = hippo_jax.prepare_inputs(pair, videos, "Describe the video.")
    own = hippo_jax.generate(pair.target, inputs, max_new_tokens=128)
    expected = [t[:n].tolist() for t, n in zip(own.tokens, own.lengths, strict=True)]
    assert all(tokens[-1] in pair.target.config.eos_token_ids for tokens in expected)
    found = peers.transformers_ways(pair.target, pair.draft, rows, 128, stop=True)
    assert len(found.runs) == 3
    for name, run in found.runs.items():
        run()
        assert found.answers[name].tokens == expected
    (drafted,) = [name for name in found.runs if name.startswith(peers.ASSISTED)]
    assert found.answers[drafted].rounds < sum(map(len, expected)) / 2
