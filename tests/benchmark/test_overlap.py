"""The overlap benchmark: intervals go to the roles that they belong to, and every row is there."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.parameters import values, with_values
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.benchmark import injected, overlap
from hippo_jax.benchmark.cpu_devices import cpu_devices
from hippo_jax.benchmark.injected import Work, injected_pair, make_works
from hippo_jax.benchmark.intervals import (
    Interval,
    Op,
    Round,
    of_branches,
    of_runs,
    periods,
    read_ops,
    rounds_of,
    traced,
)
from hippo_jax.benchmark.timeline import overlap_picture
from hippo_jax.cli import main as program
from hippo_jax.errors import HippoError
from hippo_jax.placement.placement import Placement

# ---- what the profiler says


def test_a_run_is_from_its_first_operation_to_its_last() -> None:
    ops = [
        Op("cond.1", "jit_draft", 1, 7, 0.0, 9.0),
        Op("fusion", "jit_target", 0, 5, 1.0, 2.0),
        Op("call", "jit_draft", 1, 7, 2.0, 8.0),
        Op("fusion", "jit_target", 0, 6, 4.0, 9.5),
        Op("late", "jit_target", 0, 5, 3.0, 3.5),  # on another thread
    ]
    assert of_runs(ops, "jit_target") == [Interval(1.0, 3.5), Interval(4.0, 9.5)]
    assert of_runs(ops, "jit_draft") == [Interval(0.0, 9.0)]
    assert of_runs(ops, "jit_other") == []


def test_a_branch_ends_where_its_device_waits_for_the_other() -> None:
    def one_round(at: float, device: int, work: float) -> list[Op]:
        here = ("jit_both", device, 3)
        return [
            Op("conditional.8", *here, at, at + 0.1),  # the executor went on with another thread
            Op("pure_callback.2", *here, at + 0.2, at + work),
            Op("all-reduce", *here, at + work + 0.1, at + 10),
            Op("select_fusion", *here, at + 10, at + 10.5),  # both roles move the state on
        ]

    loop = [Op("while.9", "jit_both", d, 3, 0.0, 99.0) for d in (0, 1)]
    other = [Op("cond", "jit_other", 0, 4, 5.0, 6.0)]
    ops = [*loop, *other]
    for at in (1.0, 12.0):
        ops += one_round(at, 0, 6.0) + one_round(at + 0.5, 1, 2.0)
    ops.sort(key=lambda op: op.start)
    assert of_branches(ops, "jit_both", 0) == [Interval(1.0, 7.0), Interval(12.0, 18.0)]
    assert of_branches(ops, "jit_both", 1) == [Interval(1.5, 3.5), Interval(12.5, 14.5)]


def test_rounds_begin_at_zero_and_leave_out_what_came_too_late() -> None:
    target = [Interval(5.0, 8.0), Interval(9.5, 12.0), Interval(13.0, 13.1)]
    draft = [Interval(4.0, 9.0), Interval(9.75, 12.5)]
    rounds = rounds_of(target, draft, 2)
    assert rounds == [
        Round(Interval(1.0, 4.0), Interval(0.0, 5.0)),
        Round(Interval(5.5, 8.0), Interval(5.75, 8.5)),
    ]
    assert periods(rounds) == [5.5, 3.0]
    assert rounds_of(target, draft, 3) == []  # a round that the draft was not seen in


# ---- injected work


def empty_cache() -> kv.KVCache:
    text = injected.CONFIG.text
    row = jnp.zeros((1, 8, text.num_kv_heads, text.head_dim))
    return kv.from_prompt([(row, row)] * text.num_layers, jnp.array([8]), 4)


@pytest.mark.parametrize("kind", injected.KINDS)
def test_injected_work_is_done_and_changes_no_logits(kind: str) -> None:
    """The compiled forward holds the loop or the call of the host, and the plain one does not."""
    mesh = Placement.on(1, 1).target
    work = make_works(kind, 0.004, 0.004, 4)[0]
    model = injected_pair(work, work, Placement(target=mesh, draft=mesh)).target
    plain = with_values(abstract_model(injected.CONFIG), values(model))
    cache = empty_cache()
    positions = jnp.broadcast_to(jnp.arange(8, 11), (3, 1, 3))
    asked = (jnp.array([[1, 2, 3]]), positions, cache, jnp.zeros(1, jnp.int32))

    def compiled(model: VideoLM):
        return jax.jit(lambda m: m.forward_block(*asked)[0]).lower(model).compile()

    with_work, without = compiled(model), compiled(plain)
    np.testing.assert_array_equal(with_work(model), without(plain))
    sign = "custom-call" if kind == "latency" else "while("
    assert sign in with_work.as_text() and sign not in without.as_text()


def test_a_chunk_takes_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_works("latency", 0.5, 0.2, 4) == (Work("latency", 0.5), Work("latency", 0.05))
    monkeypatch.setattr(injected, "turns_a_second", lambda: 1e4)
    assert make_works("xla", 0.5, 0.2, 4) == (Work("xla", 5000.0), Work("xla", 500.0))


# ---- the profiler itself, on programs of the schedulers' form


def asleep(seconds: float, x: jax.Array) -> jax.Array:
    """``x``, after a while."""
    waited = Work("latency", seconds)(jnp.max(x))
    return x + jnp.where(waited > 1, 1.0, 0.0)


def test_roles_of_one_program_are_told_apart(tmp_path) -> None:
    mesh = Placement.on(1, 1, one_program=True).homes()[0].mesh

    def round_(_: int, x: jax.Array) -> jax.Array:
        draft = jax.lax.axis_index("role") == 1
        found = jax.lax.cond(draft, lambda: asleep(0.008, x), lambda: asleep(0.016, x + 1))
        return jax.lax.psum(found, ("role", "tp")) / 2

    def both(x: jax.Array, count: jax.Array) -> jax.Array:
        return jax.shard_map(
            lambda x, count: jax.lax.fori_loop(0, count, round_, x),
            mesh=mesh,
            in_specs=(P(), P()),
            out_specs=P(),
            check_vma=False,
        )(x, count)

    go = jax.jit(both).lower(np.ones(4, np.float32), np.int32(3)).compile()
    jax.block_until_ready(go(np.ones(4, np.float32), np.int32(3)))
    with traced(tmp_path):
        jax.block_until_ready(go(np.ones(4, np.float32), np.int32(3)))
    ops = read_ops(tmp_path)
    target, draft = (of_branches(ops, "jit_both", device) for device in (0, 1))
    check_rounds(rounds_of(target, draft, 3), 16.0, 8.0)


def test_programs_of_two_devices_are_told_apart(tmp_path) -> None:
    first, second = jax.devices()[:2]

    def verify(x: jax.Array) -> jax.Array:
        return asleep(0.016, x @ x)

    def propose(x: jax.Array) -> jax.Array:
        return asleep(0.008, x @ x)

    def rounds() -> None:
        for _ in range(3):
            for function, device in ((verify, first), (propose, second)):
                jax.block_until_ready(jax.jit(function)(jax.device_put(jnp.ones((8, 8)), device)))

    rounds()
    with traced(tmp_path):
        rounds()
    ops = read_ops(tmp_path)
    target, draft = of_runs(ops, "jit_verify"), of_runs(ops, "jit_propose")
    assert len(target) == len(draft) == 3
    assert min(one.length for one in target) >= 16 and min(one.length for one in draft) >= 8
    turns = [one.start for pair in zip(target, draft, strict=True) for one in pair]
    assert turns == sorted(turns)
    assert {op.device for op in ops if op.program == "jit_propose"} == {second.id}


def check_rounds(rounds: list[Round], target_ms: float, draft_ms: float) -> None:
    """A sleep takes at least as long as it was told: so each role's intervals are its own. Neither
    begins a round before both have ended the one before."""
    before = 0.0
    assert len(rounds) == 3
    for one in rounds:
        assert one.target.length >= target_ms and one.draft.length >= draft_ms
        assert one.start >= before
        before = one.end


# ---- the benchmark


@pytest.mark.slow
def test_the_schedulers_own_rounds(tmp_path) -> None:
    found = overlap.measure_overlap(
        repeats=1, rounds=3, target_ms=16.0, draft_ms=8.0, trace=tmp_path
    )
    json.dumps(found, allow_nan=False)
    assert list(found["kinds"]) == list(injected.KINDS)
    latency = found["kinds"]["latency"]
    assert latency["target_ms"]["median"] >= 16 and latency["draft_ms"]["median"] >= 8
    assert latency["serial_ms"]["median"] >= 16 + 8
    for kind, own in found["kinds"].items():
        slower = max(own[f"{role}_ms"]["median"] for role in ("target", "draft"))
        for scheduler in overlap.SCHEDULERS:
            mine = own[scheduler]
            assert mine["intervals"] is True
            rounds = [
                Round(Interval(**one["target"]), Interval(**one["draft"]))
                for one in mine["timeline"]
            ]
            check_rounds(rounds, *((16.0, 8.0) if kind == "latency" else (0.0, 0.0)))
            assert mine["ratio"]["median"] == pytest.approx(mine["round_ms"]["median"] / slower)
    ways = ("target alone", "draft alone", "one after the other", *overlap.SCHEDULERS.values())
    for way in ways:
        assert read_ops(tmp_path / "xla" / way)
    alone = read_ops(tmp_path / "latency" / "draft alone")
    assert {op.device for op in alone if op.program == "jit_draft_proposes"} == {1}
    assert not any(op.program == "jit_target_verifies" for op in alone)


def made_up() -> dict:
    """What ``measure_overlap`` gives."""

    def figure(median: float) -> dict[str, float]:
        return {"median": median, "low": median - 1, "high": median + 1}

    rounds = [Round(Interval(0.0, 20.0), Interval(1.0, 15.0))]
    own = {
        "round_ms": figure(21.0),
        "wall_ms": figure(22.0),
        "ratio": figure(1.05),
        "intervals": True,
        "timeline": [asdict(one) for one in rounds],
    }
    kind = {"target_ms": figure(20.0), "draft_ms": figure(14.0), "serial_ms": figure(35.0)}
    return {
        "machine": {"device": "a processor", "cores": 2, "jax": "0"},
        "gamma": 4,
        "rounds": 1,
        "repeats": 7,
        "injected_ms": {"target": 20.0, "draft": 14.0},
        "kinds": {name: {**kind, "A": own, "B": own} for name in injected.KINDS},
    }


def test_the_table_has_every_row() -> None:
    table = overlap.as_table(made_up())
    for work in injected.KINDS.values():
        for scheduler, name in overlap.SCHEDULERS.items():
            cells = "20 (19 to 21) | 14 (13 to 15) | 35 (34 to 36)"
            assert f"| {work} | {cells} | {scheduler}: {name} | 21 (20 to 22) | 1.050 (" in table
    assert "intervals from the profiler" in table and "a processor, 2 cores" in table


class Fake:
    """Rounds without a device: what the profiler sees of them is nothing."""

    rounds = 2

    def __init__(self, *tokens: list[int]) -> None:
        self.tokens = tokens

    @staticmethod
    def nothing():
        return lambda: None

    target_alone = draft_alone = nothing

    def by_turns(self):
        return lambda: (self.tokens[0], 2)

    def in_one_program(self):
        return lambda: (self.tokens[1], 2)

    def on_two_meshes(self):
        return lambda: (self.tokens[2], 2)


def measured(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> dict:
    monkeypatch.setattr(overlap, "InjectedRounds", SimpleNamespace(of=lambda *_: fake))
    return overlap.measure_overlap(repeats=1, rounds=2, kinds=("latency",))


def test_without_intervals_the_wall_clock_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, Fake([1], [1], [1]))
    for scheduler in overlap.SCHEDULERS:
        own = found["kinds"]["latency"][scheduler]
        assert own["intervals"] is False and own["round_ms"] == own["wall_ms"]
    assert "wall clock over all of them" in overlap.as_table(found)
    with pytest.raises(HippoError, match="nothing to draw"):
        overlap_picture(found)


def test_other_tokens_are_told_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HippoError, match="decoding is at fault"):
        measured(monkeypatch, Fake([1], [1], [2]))


# ---- the command


def test_the_command_writes_a_picture(monkeypatch, tmp_path, capsys) -> None:
    asked = {}

    def measure(**keywords):
        asked.update(keywords)
        return made_up()

    monkeypatch.setattr(overlap, "measure_overlap", measure)
    folder = tmp_path / "new"
    assert program.main(["bench", "--overlap", "--trace", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made_up()
    assert asked["repeats"] == overlap.REPEATS == 7 and asked["trace"] == folder
    assert (folder / "overlap.png").stat().st_size > 1000


def test_a_trace_that_cannot_be_kept_is_refused_before_measuring(
    monkeypatch, tmp_path, capsys
) -> None:
    monkeypatch.setattr(overlap, "measure_overlap", lambda **_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        assert program.main(["bench", "--overlap", "--trace", str(tmp_path / place)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"hippo: error: --trace {tmp_path / place} cannot be a folder: ")
        assert said.count("\n") == 1


def test_without_rounds_the_table_stands(monkeypatch, tmp_path, capsys) -> None:
    outcome = made_up()
    for kind in outcome["kinds"].values():
        own = {**kind["A"], "intervals": False, "timeline": []}
        kind.update(A=own, B=own)
    monkeypatch.setattr(overlap, "measure_overlap", lambda **_: outcome)
    assert program.main(["bench", "--overlap", "--trace", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == overlap.as_table(outcome) + "\n"
    assert said.err.startswith("no picture: ") and said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--trace", "somewhere"],
        ["--model", "--trace", "somewhere"],
        ["--overlap", "--pair", "demo"],
        ["--overlap", "--gamma", "3"],
        ["--overlap", "--repeats", "0"],
        ["--overlap", "--peer", "transformers"],
    ],
)
def test_what_cannot_be_measured_is_one_line(capsys, words: list[str]) -> None:
    assert program.main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hippo: error: ") and said.count("\n") == 1


def test_too_few_devices_are_one_line() -> None:
    with pytest.raises(HippoError, match="XLA_FLAGS=--xla_force_host_platform_device_count=999"):
        cpu_devices(999)
    for wrong in ({"repeats": 0}, {"rounds": 1}, {"draft_ms": 0.0}):
        with pytest.raises(HippoError, match="at least"):
            overlap.measure_overlap(**wrong)
