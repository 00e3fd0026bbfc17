"""Checks of the whole Qwen3-VL model against transformers, and of HIPPO on a pair of two sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

import hippo_jax as hj
from hippo_jax.decoding.pruning import prune
from hippo_jax.inputs.model_inputs import ModelInputs
from support import families
from support import tiny_qwen3_vl as tiny
from support.checks_qwen3_vl import vision
from support.families import LIMIT
from support.oracles import close

NEW = LIMIT


def batch() -> ModelInputs:
    """All rows."""
    return tiny.inputs(tiny.batch_rows())


def check_cut() -> None:
    """A prefill cut between two layers that get features: the second gets its own all the same."""
    run = jax.jit(lambda m, i: m.end_prefill(i, m.begin_prefill(i, 1), 4)[0])
    close(run(tiny.model(), batch()), families.reference(tiny.case()).logits[:, -1])


def kept_half(inputs: ModelInputs) -> np.ndarray:
    """Every other visual token of each row, uneven over rows and frames."""
    counts = inputs.visual_tokens
    kept = np.full((inputs.batch, int(counts.max())), -1, np.int32)
    for b, count in enumerate(counts):
        own = np.flatnonzero(np.random.default_rng(b).random(count) < 0.5)
        kept[b, : len(own)] = own
    return kept


def check_pruned_size(size: str) -> None:
    inputs = batch()
    kept, table = kept_half(inputs), inputs.table
    model, hf = tiny.model(size), tiny.hf_model(size)
    run = jax.jit(lambda model, inputs, kept: model.prefill(prune(inputs, kept), 1)[0])
    got = run(model, inputs, jnp.asarray(kept))
    visual = torch.from_numpy(vision("batch", size).tokens)
    width = model.config.text.hidden_size
    for b, row in enumerate(tiny.batch_rows()):
        lines = np.flatnonzero(np.asarray(table.row) == b)[: inputs.visual_tokens[b]]
        chosen = lines[kept[b][kept[b] >= 0]]
        is_visual = np.isin(row.ids, (tiny.IMAGE, tiny.VIDEO))
        slots = np.asarray(table.slot)[chosen]
        columns = np.sort(np.concatenate([np.flatnonzero(~is_visual), slots]))
        positions = np.asarray(inputs.positions)[:, b : b + 1, columns]
        with torch.no_grad():
            x = hf.get_input_embeddings()(torch.from_numpy(row.ids[columns][None]).long())
            mask = torch.from_numpy(is_visual[columns][None])
            x[mask] = visual[chosen, :width]
            hidden = hf.model.language_model(
                inputs_embeds=x,
                position_ids=torch.from_numpy(positions.astype(np.int64)),
                visual_pos_masks=mask,
                deepstack_visual_embeds=list(visual[chosen, width:].split(width, dim=1)),
                use_cache=False,
            ).last_hidden_state
            expected = hf.lm_head(hidden[:, -1])[0].numpy()
        close(got[b], expected, what=f"{size}, row {b}")


def check_pruned() -> None:
    """A pruned prompt answers as transformers' text model does when it is given the same reduced
    embeddings, positions and features."""
    check_pruned_size("target")


def check_pruned_draft() -> None:
    """The same with one layer of features."""
    check_pruned_size("draft")


def speculative(pair: hj.ModelPair, schedule: str) -> hj.Generation:
    """24 tokens a row by HIPPO."""
    config = hj.HippoConfig(gamma=3, keep_ratio=0.3, schedule=schedule)
    return hj.hippo_generate(pair, batch(), max_new_tokens=NEW, eos_token_ids=(), config=config)


def check_twin_draft() -> None:
    """A draft that is the target, and sees everything, is always right: its features are added
    where its own tokens stand."""
    twins = hj.ModelPair(tiny.model(), tiny.model())
    config = hj.HippoConfig(gamma=3, keep_ratio=1.0, schedule="sequential")
    out = hj.hippo_generate(twins, batch(), max_new_tokens=NEW, eos_token_ids=(), config=config)
    assert float(out.stats.acceptance_rate) == 1.0
