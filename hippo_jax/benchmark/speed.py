"""A pair's ways of decoding, its parts, and the device's limits, measured side by side in one run.

Everything takes turns (A B A B), so that whatever else the machine does falls on all alike. Ratios
are between medians of the same run; fractions are of rates measured in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np

from hippo_jax.benchmark.acceptance import figures
from hippo_jax.benchmark.cases import Case
from hippo_jax.benchmark.ceilings import CEILINGS, COPY, MATMUL, ceilings
from hippo_jax.benchmark.measure import Run, Summary, interleave, machine
from hippo_jax.benchmark.parts import Part, make_parts
from hippo_jax.benchmark.timed import Answers, Decoder, hippo_decoder, plain_decoder, timed
from hippo_jax.benchmark.two_devices import overlap, roles_alone, side_by_side, two_mesh_decoder
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.plan import make_plan

PLAIN = "target alone"
DRAFT = "draft alone"  # its own text, which need not be the target's
FULL = "sequential, draft sees all"
SEQUENTIAL, PARALLEL = "sequential", "parallel (one device: by turns)"
WAYS = {
    FULL: HippoConfig(schedule="sequential", keep_ratio=1.0),
    SEQUENTIAL: HippoConfig(schedule="sequential"),
    PARALLEL: HippoConfig(schedule="parallel"),
}
PEER = "transformers"
APART, ROLES = "parallel, draft on {}", "roles alone"


def measure_speed(
    case: Case,
    *,
    repeats: int,
    gamma: int,
    keep_ratio: float | None = None,
    peer: str | None = None,
    draft_on: jax.Device | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Decode the case in every way, and run each part of a call alone.

    ``"ways"``: per prompt seconds until the first token is there (``prefill_s``; of HIPPO with
    scores and the draft's prefill, in the parallel schedule with its first chunk), milliseconds for
    each further token, seconds in all, what the compiler says the programs need at most
    (``peak_bytes``: arguments, results and temporaries of the larger one; ``None`` for peers), and
    ``"speed"``: the target's time divided by the way's own, without prefill (``"decode"``) and with
    it (``"whole"``). ``"same_tokens"`` of a way says whether it gave the target's tokens; the draft
    alone is asked for none. ``"over_peer"``: see there.

    ``"overlap"``, with ``draft_on``: milliseconds of each role's program of a round alone and of a
    round of both, and that over the slower role's and over the sum.

    ``"parts"``: milliseconds of each part alone, ``"of_matmul"``: operations of its products a
    second as a fraction of the measured matmul rate, ``"of_copy"``: bytes of weights and cache that
    it reads a second as a fraction of the measured copy bandwidth. A small model may be read from
    the processor's cache, faster than memory.

    Args:
        gamma: tokens of a chunk.
        keep_ratio: what the draft sees; ``None``: the default.
        peer: ``"transformers"``: its own ways too, on the same weights.
        draft_on: a device beside the target's. The parallel schedule is then also measured with a
            copy of the draft there, in that device's own dtype, as two programs side by side.

    Raises:
        HippoError: numbers that do not fit; no torch for the peer.
    """
    if case.new_tokens < 2 or repeats < 1:
        raise HippoError("the benchmark needs at least 2 new tokens and 1 repeat")
    configs = {name: replace(config, gamma=gamma) for name, config in WAYS.items()}
    if keep_ratio is not None:
        for name in (SEQUENTIAL, PARALLEL):
            configs[name] = replace(configs[name], keep_ratio=keep_ratio)
    pair, prompts = case.pair, case.prompts()
    decoders = {
        PLAIN: plain_decoder(pair.target, case.new_tokens, case.end_tokens),
        DRAFT: plain_decoder(pair.draft, case.new_tokens, case.end_tokens),
        **{
            name: hippo_decoder(pair, case.new_tokens, config, case.end_tokens)
            for name, config in configs.items()
        },
    }
    alone: dict[str, Run] = {}
    if draft_on is not None:
        apart = side_by_side(pair, draft_on)
        way = APART.format(draft_on.platform)
        own_config = configs[PARALLEL]
        decoders[way] = two_mesh_decoder(apart, case.new_tokens, own_config, case.end_tokens)
        alone[ROLES] = roles_alone(apart, prompts[0], case.new_tokens, own_config)
    answers = {name: Answers() for name in decoders}
    runs: dict[str, Run] = {}
    memory: dict[str, int | None] = {}
    for name, decoder in decoders.items():
        report(f"compiling: {name}")
        memory[name] = max((_peak(decoder, inputs) for inputs in prompts), key=lambda x: x or 0)
        runs[name] = timed(prompts, decoder, answers[name])
    peer_said: dict[str, Any] = {}
    if peer == PEER:
        from hippo_jax.benchmark.peer_transformers import transformers_ways

        peers = transformers_ways(
            pair.target,
            pair.draft,
            case.rows,
            case.new_tokens,
            stop=case.script is None,
            script=case.script,
            report=report,
        )
        runs, answers = {**runs, **peers.runs}, {**answers, **peers.answers}
        peer_said = {"missing": peers.missing, "settings": peers.settings}
    report("compiling: parts")
    plan, _ = make_plan(
        pair,
        prompts[0],
        case.new_tokens,
        None,
        None,
        None,
        case.end_tokens,
        configs[PARALLEL],
    )
    parts = make_parts(pair, prompts[0], plan, every=True)
    every = {
        **runs,
        **alone,
        **{f"part: {name}": part.run for name, part in parts.items()},
        CEILINGS: ceilings(pair.target.dtype),
    }
    results = interleave(every, repeats, report)
    limits = results[CEILINGS]
    kept = answers[SEQUENTIAL].pooled.kept_visual_tokens
    ours = {name: results[name] for name in runs if name in decoders}
    plain_peers = {name: results[name] for name in runs if name.startswith(f"{PEER}, plain")}
    return {
        "machine": machine(),
        "case": {
            **case.about(),
            "visual_tokens": int(prompts[0].visual_tokens[0]),
            "kept_visual_tokens": int(np.asarray(kept)[0]),
            "keep_ratio": configs[SEQUENTIAL].keep_ratio,
            "gamma": gamma,
        },
        "repeats": repeats,
        "ceilings": {name: asdict(summary) for name, summary in limits.items()},
        "ways": {
            name: _way(results[name], results[PLAIN], answers[name], answers[PLAIN])
            | {"peak_bytes": memory.get(name)}
            for name in runs
        },
        "parts": {
            name: _part(results[f"part: {name}"]["ms"], part, limits)
            for name, part in parts.items()
        },
        "overlap": None
        if draft_on is None
        else overlap(apart, results[ROLES], results[way]["decode_ms_per_round"]),
        "peer": peer_said,
        "over_peer": over_peer(ours, plain_peers),
        "same_tokens": all(
            found.tokens == answers[PLAIN].tokens
            for name, found in answers.items()
            if name != DRAFT
        ),
    }


def over_peer(
    ours: Mapping[str, Mapping[str, Summary]], plain: Mapping[str, Mapping[str, Summary]]
) -> dict[str, dict[str, float]]:
    """How many times as fast as the peer's best plain decoding each way is: ``"first"`` until the
    first token, ``"decode"`` behind it, ``"whole"`` in all, each against the best of its own kind.
    Nothing without a peer, nor for the draft alone, whose text is another."""
    if not plain:
        return {}
    times = {"first": "prefill_s", "decode": "decode_ms_per_token", "whole": "whole_s"}
    best = {what: min(found[what].median for found in plain.values()) for what in times.values()}
    return {
        name: {short: best[what] / found[what].median for short, what in times.items()}
        for name, found in ours.items()
        if name != DRAFT
    }


def _peak(decoder: Decoder, inputs: ModelInputs) -> int | None:
    """Bytes of the larger of a decoder's programs; ``None`` where a backend does not say, or the
    programs are many."""
    found = []
    for program in decoder.programs(inputs):
        memory = program.memory_analysis()
        if memory is None:
            return None
        found.append(
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes
        )
    return max(found, default=None)


def _way(
    own: Mapping[str, Summary], plain: Mapping[str, Summary], said: Answers, target: Answers
) -> dict[str, Any]:
    later = sum(map(len, said.tokens)) - len(said.tokens)
    parts = {"decode": "decode_ms_per_token", "whole": "whole_s"}
    return {
        **{what: asdict(summary) for what, summary in own.items()},
        "tokens": later + len(said.tokens),
        "tokens_per_s": 1e3 / own["decode_ms_per_token"].median,
        "tokens_per_round": later / said.rounds if said.rounds else None,
        "acceptance": figures(said.pooled)["acceptance_rate"] if said.stats else None,
        "speed": {name: plain[what].median / own[what].median for name, what in parts.items()},
        "same_tokens": said.tokens == target.tokens,
    }


def _part(ms: Summary, part: Part, limits: Mapping[str, Summary]) -> dict[str, Any]:
    seconds = ms.median / 1e3
    matmul = copy = None
    if part.operations is not None:
        matmul = part.operations / seconds / (limits[MATMUL].median * 1e9)
    if part.bytes is not None:
        copy = part.bytes / seconds / (limits[COPY].median * 1e9)
    return {
        "ms": asdict(ms),
        "operations": part.operations,
        "bytes": part.bytes,
        "of_matmul": matmul,
        "of_copy": copy,
    }
