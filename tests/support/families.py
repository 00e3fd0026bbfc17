"""One harness for all families: a description of a tiny model of transformers, and what must hold.

A family adds one file to ``support/family_cases`` with ``CASE = FamilyCase(...)``; every check here
then runs on it (``tests/architectures/families``), and its ``mutants`` too (``tests/mutants``). The
torch model is the oracle: float32, every bias and norm perturbed.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from hippo_jax.architectures.parameters import declared, values, with_values
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.inputs.model_inputs import ModelInputs, Row, assemble
from hippo_jax.placement.pair import ModelPair
from support.tiny import perturb

LIMIT = 24

Grid = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class FamilyCase:
    """A family's tiny model.

    Attributes:
        name: ``model_type``.
        hf_class: the class in transformers.
        hf_config: ``tied -> config``; two or more decoder layers, vocabulary of even size.
        rows: prompts of one batch, of unequal lengths: rows with one and with several videos, and
            one of text alone. Ids with expanded placeholders.
        hf_inputs: ``rows -> `` the arrays of a transformers processor, padded on the left.
        placeholders: ids of visual tokens.
        scored: ``row -> [(video, grid, columns)]``: of each medium its number among the videos (-1
            for an image), (frames, height, width) in tokens, and the columns of its scored tokens.
        hub_name: a tensor's name as ``save_pretrained`` writes it -> in the published files.
        settle: last changes to the perturbed oracle (weights that are no vectors or matrices).
        modules: further checks, of the parts of the tower.
        mutants: (name, (function, old, new), check), where the check takes no argument or a case.
        draft: the draft of a pair, or ``None`` for a noisy copy of the model.
    """

    name: str
    hf_class: type
    hf_config: Callable[[bool], Any]
    rows: Callable[[], Sequence[Row]]
    hf_inputs: Callable[[Sequence[Row]], dict[str, torch.Tensor]]
    placeholders: tuple[int, ...]
    scored: Callable[[Row], Sequence[tuple[int, Grid, np.ndarray]]]
    hub_name: Callable[[str], str] = str
    settle: Callable[[Any], None] | None = None
    modules: tuple[Callable[[], None], ...] = ()
    mutants: tuple[tuple[str, tuple, Callable[..., None]], ...] = ()
    draft: Callable[[], VideoLM] | None = None

    def __str__(self) -> str:
        return self.name


@functools.cache
def cases() -> tuple[FamilyCase, ...]:
    """All that are described."""
    from support import family_cases

    found = sorted(item.name for item in pkgutil.iter_modules(family_cases.__path__))
    return tuple(importlib.import_module(f"support.family_cases.{name}").CASE for name in found)


@functools.cache
def hf_model(case: FamilyCase, tied: bool = False) -> Any:
    """The oracle."""
    model = case.hf_class(case.hf_config(tied)).eval().float()
    perturb(model)
    if case.settle is not None:
        case.settle(model)
    if tied:
        model.tie_weights()
    return model


def convert(case: FamilyCase, hf: Any) -> VideoLM:
    """Our model with the oracle's weights, through the declared name table. Text goes on after a
    video as transformers 5 has it."""
    family = family_of(case.name)
    config = replace(family.config_from_hf(hf.config.to_dict(), None), text_position_rule="extent")
    model = abstract_model(config)
    shapes, state = declared(model), hf.state_dict()
    weights = {
        path: jnp.asarray(tensor.to_ours(state[tensor.name].numpy(), shapes[path].shape))
        for path, tensor in family.hf_tensors(config).items()
    }
    return with_values(model, weights)


@functools.cache
def model(case: FamilyCase) -> VideoLM:
    """``convert`` of the untied oracle."""
    return convert(case, hf_model(case))


@functools.cache
def pair(case: FamilyCase) -> ModelPair:
    """The model and a draft that often agrees with it."""
    if case.draft is not None:
        return ModelPair(model(case), case.draft())
    rng = np.random.default_rng(1)
    noisy = {}
    for path, x in values(model(case)).items():
        own = np.asarray(x)
        noise = rng.standard_normal(own.shape).astype(np.float32)
        noisy[path] = own + 0.05 * own.std() * noise
    return ModelPair(model(case), with_values(model(case), noisy))


def inputs(case: FamilyCase) -> ModelInputs:
    """The batch for the pair."""
    return assemble(model(case), case.rows(), draft=pair(case).draft)


@functools.cache
def reference(case: FamilyCase) -> SimpleNamespace:
    """What transformers makes of the rows, padded on the left: ``embeds`` (visual tokens in their
    places), every decoder layer's input ``before`` and output ``after``, ``logits``, and greedy
    ``tokens [B, LIMIT]``."""
    hf, given = hf_model(case), case.hf_inputs(case.rows())
    decoder = hf.model.language_model
    seen: dict[str, list] = {"before": [], "after": [], "embeds": []}

    def watch_decoder(module, args, kwargs):
        seen["embeds"].append(kwargs["inputs_embeds"].numpy().copy())

    def watch(module, args, output):
        seen["before"].append(args[0].numpy().copy())
        seen["after"].append((output[0] if isinstance(output, tuple) else output).numpy().copy())

    hooks = [layer.register_forward_hook(watch) for layer in decoder.layers]
    hooks.append(decoder.register_forward_pre_hook(watch_decoder, with_kwargs=True))
    try:
        with torch.no_grad():
            logits = hf(**given).logits.numpy()
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        out = hf.generate(
            **given,
            max_new_tokens=LIMIT,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            repetition_penalty=1.0,
        )
    return SimpleNamespace(
        logits=logits,
        tokens=out[:, given["input_ids"].shape[1] :].numpy(),
        embeds=seen["embeds"][0],
        before=seen["before"],
        after=seen["after"],
    )


def right_padded(x: np.ndarray, rows: Sequence[Row], columns: int) -> np.ndarray:
    """``[B, T, ...]`` padded on the left to ``[B, columns, ...]`` padded on the right."""
    out = np.zeros((x.shape[0], columns, *x.shape[2:]), x.dtype)
    for b, row in enumerate(rows):
        out[b, : len(row.ids)] = x[b, x.shape[1] - len(row.ids) :]
    return out


def on_host(tree: Any) -> Any:
    """Every leaf as numpy."""
    return jax.tree.map(np.asarray, tree)
