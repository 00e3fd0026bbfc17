"""The ways in which transformers decodes: plain, compiled, prompt lookup, assisted. Greedy, one
prompt at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hippo_jax.benchmark.measure import Run
from hippo_jax.benchmark.peer_hooks import Unlooked, seeing, unsaid
from hippo_jax.benchmark.peer_model import TransformersPeer
from hippo_jax.benchmark.timed import Answers
from hippo_jax.errors import HippoError

Prompt = Mapping[str, Any]
"""``TransformersPeer.inputs`` of a row."""


class Clock:
    """A streamer of transformers: when the tokens of each of the target's forwards were there.

    Attributes:
        seconds: since it was made; entry 0 is the prompt, which ``generate`` puts first.
    """

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.seconds: list[float] = []

    def put(self, tokens: Any) -> None:
        """The prompt, then the tokens that a forward settled."""
        self.seconds.append(time.perf_counter() - self.begin)

    def end(self) -> None:
        """Part of a streamer; nothing is left to do."""


Way = Callable[[Prompt, int, Clock], Any]
"""``way(prompt, window, clock)``: ids ``[1, T]`` of the prompt and its answer."""


def plain(peer: TransformersPeer, new_tokens: int) -> Way:
    """One token a forward, as ``generate`` does by itself."""

    def way(prompt: Prompt, window: int, clock: Clock) -> Any:
        return peer.model.generate(**prompt, max_new_tokens=new_tokens, streamer=clock)

    return way


def compiled(peer: TransformersPeer, new_tokens: int) -> Way:
    """The same with a static cache and ``torch.compile`` for all but the prompt's forward.

    Raises:
        HippoError: transformers did not compile, for reasons of its own.
    """
    from transformers import CompileConfig

    on_cpu = peer.model.device.type == "cpu"
    config = CompileConfig(mode="default") if on_cpu else CompileConfig()
    # Without it a CPU runs eagerly, with no more than a warning.
    config._compile_all_devices = True  # type: ignore[assignment]

    def way(prompt: Prompt, window: int, clock: Clock) -> Any:
        said = peer.model.generate(
            **prompt,
            max_new_tokens=new_tokens,
            streamer=clock,
            cache_implementation="static",
            compile_config=config,
        )
        if not hasattr(peer.model, "_compiled_call"):
            raise HippoError("this transformers did not compile the model")
        return said

    return way


def looked_up(peer: TransformersPeer, new_tokens: int) -> Way:
    """What followed the last tokens earlier in the text is checked as a draft."""

    def way(prompt: Prompt, window: int, clock: Clock) -> Any:
        until = prompt["input_ids"].shape[1] + window
        return peer.model.generate(
            **prompt,
            max_new_tokens=new_tokens,
            streamer=clock,
            prompt_lookup_num_tokens=window,
            logits_processor=[Unlooked(peer.placeholders, until)],
        )

    return way


def assisted(target: TransformersPeer, draft: TransformersPeer, new_tokens: int) -> Way:
    """A draft that sees the video proposes a whole window, always: no schedule changes its length
    and no doubt of the draft ends it (transformers stops below a confidence of 0.4 by default)."""

    def way(prompt: Prompt, window: int, clock: Clock) -> Any:
        chosen = draft.model.generation_config
        chosen.num_assistant_tokens = window
        chosen.num_assistant_tokens_schedule = "constant"
        chosen.assistant_confidence_threshold = 0.0
        media = {key: prompt[key] for key in prompt if key.startswith(("pixel", "video", "image"))}
        until = prompt["input_ids"].shape[1] + window
        with seeing(draft.model, media), unsaid(draft.model, draft.placeholders, until):
            return target.model.generate(
                **prompt, max_new_tokens=new_tokens, streamer=clock, assistant_model=draft.model
            )

    return way


def turn(
    torch: Any,
    way: Way,
    prompts: Sequence[Prompt],
    window: int,
    threads: int | None,
    answers: Answers,
) -> Run:
    """All prompts one after the other; measures what ``timed.timed`` does, by the same formulas.

    Args:
        threads: of torch on a CPU; ``None`` on a GPU.
        answers: filled by every run. Rounds are the target's forwards that settled tokens, where
            one of them can settle several; else 0.
    """

    def run() -> dict[str, float]:
        prefill = whole = 0.0
        answers.tokens, answers.rounds = [], 0
        with torch.inference_mode(), _quick(torch, threads):
            for prompt in prompts:
                clock = Clock()
                said = way(prompt, window, clock)
                whole += time.perf_counter() - clock.begin
                prefill += clock.seconds[1]
                answers.tokens.append(said[0, prompt["input_ids"].shape[1] :].tolist())
                answers.rounds += len(clock.seconds) - 1 if window else 0
        rows = len(prompts)
        # The first token of each answer came with the prefill.
        later = sum(map(len, answers.tokens)) - rows
        return {
            "prefill_s": prefill / rows,
            "decode_ms_per_token": 1e3 * (whole - prefill) / max(1, later),
            "whole_s": whole / rows,
        }

    return run


@contextmanager
def _quick(torch: Any, threads: int | None) -> Iterator[None]:
    """Settings of the process, set back at the end. A GPU may multiply float32 in TF32, as jax does
    by default; what transformers remarks on its own arguments is kept quiet."""
    from transformers.utils import logging

    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), logging.get_verbosity()
    if threads is None:
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(threads)
    logging.set_verbosity_error()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        logging.set_verbosity(before[2])
