"""The peer: every way that Hugging Face transformers has to decode the same weights, each at its
best setting (needs the extra ``peer``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.measure import Run
from hippo_jax.benchmark.peer_hooks import say
from hippo_jax.benchmark.peer_model import ATTENTION, TransformersPeer, require_torch
from hippo_jax.benchmark.peer_ways import (
    Prompt,
    Way,
    assisted,
    compiled,
    looked_up,
    plain,
    turn,
)
from hippo_jax.benchmark.script import Script
from hippo_jax.benchmark.timed import Answers
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Row

EAGER = "transformers, plain"
COMPILED = "transformers, plain, compiled"
LOOKUP = "transformers, prompt lookup"
ASSISTED = "transformers, assisted"

WINDOWS = (3, 5, 8, 12)
"""How many tokens a draft proposes, or are looked up, for one forward: those that are tried."""
COPIED_SHARE = 0.25
"""Of a GPU's memory: a larger model's weights are shared with ours, not copied."""
TRIALS = 2
"""Unmeasured turns of every setting that is tried; the faster one counts."""


@dataclass(frozen=True)
class Setting:
    """How a way is run.

    Attributes:
        window: proposed tokens for one forward of the target, 0 for none.
        threads: of torch on a CPU, ``None`` elsewhere.
    """

    window: int
    threads: int | None

    def row(self, way: str) -> str:
        """Name of the way's row in a table."""
        window = [f"{self.window} tokens"] if self.window else []
        threads = [f"{self.threads} threads"] if self.threads else []
        return ", ".join([way, *window, *threads]).replace(", 1 threads", ", 1 thread")


@dataclass(frozen=True)
class Peers:
    """The peer's ways of decoding.

    Attributes:
        runs: name of a row -> one turn over all prompts. Measures, per prompt, what
            ``timed.timed`` does: ``prefill_s`` until the first token is there (of prompt lookup and
            assisted decoding with their first window, which is proposed and checked along with the
            prompt), ``decode_ms_per_token`` of each token behind the first, ``whole_s``.
        answers: what each of them said in its last turn. Rounds are the target's forwards, the
            prompt's included; 0 for plain decoding.
        missing: way -> why it was not measured.
        settings: versions, device, attention implementation, and window and threads of each row.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    answers: dict[str, Answers] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def transformers_ways(
    target: VideoLM,
    draft: VideoLM | None,
    rows: Sequence[Row],
    new_tokens: int,
    *,
    stop: bool,
    script: Script | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Peers:
    """Plain ``generate``, eager and compiled with a static cache, prompt lookup, and assisted
    decoding with a draft that sees the video; greedy, one prompt at a time.

    Each way is tried with one thread and with all, the last two with several windows too; the
    setting with the shortest turn is the one that is measured. What cannot be run is in
    ``missing``, with the reason.

    Args:
        rows: the prompts.
        new_tokens: at most so many a prompt, at least 2; exactly so many without ``stop``.
        stop: end behind the checkpoint's end tokens.
        script: what both models are made to say. Prompt lookup is then left out.
        report: told what goes on, in lines.

    Raises:
        HippoError: no torch, or one that cannot use the GPU that jax uses; another family than
            Qwen2.5-VL; no prompts; a script that does not fit.
    """
    torch = require_torch()
    device = _device(torch)
    if not rows or new_tokens < 2:
        raise HippoError("the peer needs at least one prompt and 2 new tokens")
    ours = {"target": target} if draft is None else {"target": target, "draft": draft}
    models = {
        role: TransformersPeer(model, device, share=_too_large(torch, model, device))
        for role, model in ours.items()
    }
    config = models["target"].model.generation_config
    config.do_sample = False
    config.pad_token_id = target.config.pad_token_id
    config.eos_token_id = list(target.config.eos_token_ids) or None if stop else None
    if script is not None:
        _check(script, target, rows, new_tokens)
        for role, peer in models.items():
            say(peer, getattr(script, role))
    peers = Peers(settings=_settings(torch, models["target"]))
    ways = _ways(models, new_tokens, script, peers.missing)
    prompts = [models["target"].inputs(row) for row in rows]
    for name, (way, windows) in ways.items():
        try:
            best = _best(torch, way, prompts, windows)
        except Exception as error:  # another's code: whatever it raises, the others are measured
            peers.missing[name] = _one_line(error)
            report(f"{name}: not measured, {peers.missing[name]}")
            continue
        row = best.row(name)
        peers.answers[row] = Answers()
        peers.runs[row] = turn(torch, way, prompts, best.window, best.threads, peers.answers[row])
        peers.settings["rows"][row] = {"window": best.window, "threads": best.threads}
        report(f"chosen: {row}")
    return peers


def _ways(
    models: Mapping[str, TransformersPeer],
    new_tokens: int,
    script: Script | None,
    missing: dict[str, str],
) -> dict[str, tuple[Way, tuple[int, ...]]]:
    """Each way and the windows to try; what makes no sense here goes to ``missing``."""
    target, draft = models["target"], models.get("draft")
    ways: dict[str, tuple[Way, tuple[int, ...]]] = {
        EAGER: (plain(target, new_tokens), (0,)),
        COMPILED: (compiled(target, new_tokens), (0,)),
    }
    if script is None:
        ways[LOOKUP] = (looked_up(target, new_tokens), WINDOWS)
    else:
        missing[LOOKUP] = "the text is made up, so looking it up in the prompt says nothing"
    if draft is None:
        missing[ASSISTED] = "there is no draft"
    elif draft.config.text.vocab_size != target.config.text.vocab_size:
        missing[ASSISTED] = "transformers wants vocabularies of one size for both models"
    else:
        ways[ASSISTED] = (assisted(target, draft, new_tokens), WINDOWS)
    return ways


def _best(torch: Any, way: Way, prompts: Sequence[Prompt], windows: Sequence[int]) -> Setting:
    """The setting with the shortest turn: first the window with all threads, then the threads."""

    def seconds(setting: Setting) -> float:
        # Longest first: a static cache keeps the largest size so far, and with it its program.
        longest = max(prompts, key=lambda prompt: prompt["input_ids"].shape[1])
        turn(torch, way, [longest], setting.window, setting.threads, Answers())()
        run = turn(torch, way, prompts, setting.window, setting.threads, Answers())
        return min(run()["whole_s"] for _ in range(TRIALS))

    on_cpu = prompts[0]["input_ids"].device.type == "cpu"
    threads: list[int | None] = [*dict.fromkeys((cores(), 1))] if on_cpu else [None]
    found = {s: seconds(s) for s in (Setting(window, threads[0]) for window in windows)}
    window = min(found, key=lambda setting: found[setting]).window
    found |= {s: seconds(s) for s in (Setting(window, number) for number in threads[1:])}
    return min(found, key=lambda setting: found[setting])


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device(torch: Any) -> str:
    """Where the peer runs: on the kind of device that jax uses.

    Raises:
        HippoError: torch cannot use it, and a slower device would be no comparison.
    """
    backend = jax.default_backend()
    if backend == "cpu":
        return "cpu"
    if backend == "gpu" and torch.cuda.is_available():
        return "cuda"
    raise HippoError(
        f"jax runs on a {backend} that this torch cannot use: install a torch for it, or compare "
        "on the CPU with JAX_PLATFORMS=cpu"
    )


def _too_large(torch: Any, model: VideoLM, device: str) -> bool:
    """Whether a second copy of the weights would leave an accelerator too little room."""
    if device == "cpu":
        return False
    held: int = torch.cuda.mem_get_info()[1]
    return sum(array.nbytes for array in values(model).values()) > COPIED_SHARE * held


def _settings(torch: Any, peer: TransformersPeer) -> dict[str, Any]:
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": str(peer.model.device),
        "dtype": str(peer.model.dtype).removeprefix("torch."),
        "attention": ATTENTION,
        "weights": "shared with ours, transposed" if peer.shared else "its own copy",
        "rows": {},
    }


def _check(script: Script, target: VideoLM, rows: Sequence[Row], new_tokens: int) -> None:
    """Raises ``HippoError`` where both models cannot say it."""
    config = target.config
    ends = []
    for row in rows:
        media = [(item.kind, item.grid, item.seconds_per_grid) for item in row.media]
        ends.append(target.family.rope_positions(config, row.ids, media)[1] + new_tokens)
    if min(len(script.target), len(script.draft)) < max(ends):
        raise HippoError(f"the script ends before position {max(ends)}, where the answers end")
    said = np.concatenate([script.target, script.draft])
    if said.min() < 0 or said.max() >= config.text.vocab_size:
        raise HippoError(f"the script holds tokens beyond the {config.text.vocab_size} there are")
    if np.isin(said, (config.image_token_id, config.video_token_id)).any():
        raise HippoError("the script holds placeholders of visual tokens, which nobody says")


def _one_line(error: Exception) -> str:
    if isinstance(error, HippoError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
