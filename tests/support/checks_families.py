"""What must hold for every family, against transformers, for tests and for mutants."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import hippo_jax as hj
from hippo_jax.architectures.attention import causal_attention
from hippo_jax.architectures.parameters import declared, values
from hippo_jax.architectures.sharding import Home, specs_at
from hippo_jax.decoding.pruning import prune
from hippo_jax.inputs.model_inputs import Row, assemble
from hippo_jax.placement.placement import Placement
from hippo_jax.scheduling.plan import make_plan
from hippo_jax.scheduling.roles import read_prompt
from hippo_jax.scoring.selection import select_tokens
from hippo_jax.weights.export import save_hf
from hippo_jax.weights.load import load_model, place_model
from hippo_jax.weights.safetensors_reader import SINGLE_NAME
from support.families import (
    LIMIT,
    FamilyCase,
    convert,
    hf_model,
    inputs,
    model,
    pair,
    reference,
    right_padded,
)
from support.oracles import close
from support.placements import placed


def check_names(case: FamilyCase) -> None:
    """The name table covers the oracle's tensors one to one, tied and untied."""
    for tied in (False, True):
        hf = hf_model(case, tied)
        ours = convert(case, hf)
        table = ours.family.hf_tensors(ours.config)
        assert set(table) == set(declared(ours))
        state = {name: tuple(x.shape) for name, x in hf.state_dict().items()}
        if tied:
            state.pop("lm_head.weight", None)
        assert {item.name: tuple(item.shape) for item in table.values()} == state


def check_visual_tokens(case: FamilyCase) -> None:
    """The decoder is given the oracle's embeddings, at text and at visual columns."""
    rows, batch = case.rows(), inputs(case)
    got = jax.jit(lambda m, i: m.embed_prompt(i, m.encode_video(i)))(model(case), batch)
    expected = right_padded(reference(case).embeds, rows, got.shape[1])
    for b, row in enumerate(rows):
        length = len(row.ids)
        close(got[b, :length], expected[b, :length], what=f"row {b}")


def check_decoder_layers(case: FamilyCase) -> None:
    """Every layer by itself, fed what the reference fed it."""
    rows, expected, batch = case.rows(), reference(case), inputs(case)
    decoder = model(case).decoder
    columns = batch.token_ids.shape[1]
    given = np.stack([right_padded(x, rows, columns) for x in expected.before])

    @jax.jit
    def run(x, positions):
        return [
            decoder.run_layers(
                x[i],
                positions,
                lambda layer, q, k, v: causal_attention(q, k, v),
                start=i,
                stop=i + 1,
            )[0]
            for i in range(len(decoder.layers))
        ]

    for index, got in enumerate(run(given, batch.positions)):
        theirs = right_padded(expected.after[index], rows, columns)
        for b, row in enumerate(rows):
            length = len(row.ids)
            close(got[b, :length], theirs[b, :length], what=f"layer {index}, row {b}")


def check_logits(case: FamilyCase) -> None:
    """Teacher-forced logits at every token of the batch."""
    expected, got = reference(case).logits, model(case)(inputs(case))
    for b, row in enumerate(case.rows()):
        length = len(row.ids)
        close(got[b, :length], expected[b, -length:], what=f"row {b}")


def check_prefill(case: FamilyCase) -> None:
    """Prefill gives the last token's logits, cut behind its first layer too; where the tower feeds
    several layers, behind any of them."""
    batch, expected = inputs(case), reference(case).logits[:, -1]

    def run(model, batch):
        found, visual = [], model.encode_video(batch)
        text = model.config.text
        deep = visual.shape[1] > text.hidden_size
        for layers in range(text.num_layers + 1) if deep else (1,):
            begun = model.begin_prefill(batch, layers, visual=visual)
            found.append(model.end_prefill(batch, begun, 4)[0])
        watched = model.prefill(batch, 4, observe=lambda layer, q, k: None)[0]
        return [*found, watched]

    for got in jax.jit(run)(model(case), batch):
        close(got, expected)


def check_greedy(case: FamilyCase) -> None:
    """24 greedy tokens a row, token for token."""
    got = hj.generate(model(case), inputs(case), max_new_tokens=LIMIT, eos_token_ids=())
    np.testing.assert_array_equal(np.asarray(got.tokens)[:, :LIMIT], reference(case).tokens)


def check_from_hf(case: FamilyCase) -> None:
    """The mapping of a processor, padded left or right, gives the very batch that rows give."""
    rows = case.rows()
    for side in ("left", "right"):
        given = {name: array.numpy() for name, array in case.hf_inputs(rows).items()}
        width = given["input_ids"].shape[1]
        pads = [width - len(row.ids) for row in rows]
        if side == "right":
            for name in ("input_ids", "attention_mask"):
                turned = [np.roll(row, -pad) for row, pad in zip(given[name], pads, strict=True)]
                given[name] = np.stack(turned)
            pads = [0] * len(rows)
        got = hj.ModelInputs.from_hf(model(case), given)
        expected = assemble(model(case), rows, left_padding=pads, width=width)
        assert jax.tree.structure(got) == jax.tree.structure(expected)
        for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def check_table(case: FamilyCase) -> None:
    """Row, column, video, frame and place of every scored token, counted one by one; what is never
    pruned; and what asks."""
    rows, batch = case.rows(), inputs(case)
    lines, texts, queries = [], [], []
    for b, row in enumerate(rows):
        scored: list[int] = []
        for video, (frames, height, width), columns in case.scored(row):
            slots = iter(int(column) for column in columns)
            for frame in range(frames):
                for y in range(height):
                    for x in range(width):
                        size = (frames, height, width)
                        lines.append((b, next(slots), video, frame, y, x, *size))
            assert next(slots, None) is None
            scored += [int(column) for column in columns]
        texts.append([c for c in range(len(row.ids)) if c not in set(scored)])
        visual = np.flatnonzero(np.isin(row.ids, case.placeholders))
        last = visual[-1] if len(visual) else len(row.ids) - 2
        queries.append(list(range(last + 1, len(row.ids))))
    table = batch.table
    columns = ("row", "slot", "video", "frame", "y", "x", "frames", "height", "width")
    got = np.stack([getattr(table, column) for column in columns], axis=1)
    np.testing.assert_array_equal(got[table.valid], lines)
    np.testing.assert_array_equal(table.valid, np.arange(len(table.valid)) < len(lines))
    for b in range(len(rows)):
        for found, expected in ((batch.text_columns, texts), (batch.query_columns, queries)):
            assert [c for c in found[b] if c >= 0] == expected[b]


def check_features(case: FamilyCase) -> None:
    """What scores see of a token is its embedding, and what they choose is kept."""
    rows, batch, hidden = case.rows(), inputs(case), model(case).config.text.hidden_size
    embeds = right_padded(reference(case).embeds, rows, batch.token_ids.shape[1])
    table = batch.table
    expected = embeds[table.row, table.slot] * np.asarray(table.valid)[:, None]
    seen: list[jax.Array] = []

    def choose(context):
        assert context.features.shape == (len(table.valid), hidden)
        seen.append(context.features)
        return jnp.sum(context.features, axis=1).astype(jnp.float32)

    config = hj.HippoConfig(2, 0.3, "sequential", hj.ScoringConfig(selector=choose))
    plan, _ = make_plan(pair(case), batch, 4, None, None, None, (), config)

    def run(model, batch):
        visual = model.encode_video(batch)
        _, kept = read_prompt(model, batch, visual, plan, choose=True)
        return kept, seen.pop()

    kept, features = jax.jit(run)(model(case), batch)
    close(np.asarray(features) * np.asarray(table.valid)[:, None], expected)
    scores = jnp.asarray(np.asarray(features).sum(1) * table.valid)
    np.testing.assert_array_equal(kept, select_tokens(scores, batch, 0.3, scope="global"))


def check_pruned_prompt(case: FamilyCase) -> None:
    """The draft on a pruned prompt says what it says on the whole one with the rest hidden."""
    batch, draft = inputs(case), pair(case).draft
    rng = np.random.default_rng(0)
    own = np.asarray(batch.visual_tokens)
    kept = np.full((len(own), 6), -1)
    visible = np.arange(batch.token_ids.shape[1]) < np.asarray(batch.lengths)[:, None]
    table = batch.table
    for row, count in enumerate(own):
        kept_here = np.sort(rng.choice(count, min(count, 2 + row), replace=False))
        kept[row, : len(kept_here)] = kept_here
        slots = np.asarray(table.slot)[np.asarray(table.valid) & (np.asarray(table.row) == row)]
        visible[row, np.delete(slots, kept_here)] = False

    def hidden_prompt(draft, batch):
        def attend(layer, q, k, v):
            repeat = q.shape[2] // k.shape[2]
            scores = jnp.einsum("btnh,bsnh->bnts", q, jnp.repeat(k, repeat, 2))
            causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
            seen = causal & visible[:, None, None]
            scores = jnp.where(seen, scores * q.shape[-1] ** -0.5, -1e30)
            weights = jax.nn.softmax(scores, axis=-1)
            return jnp.einsum("bnts,bsnh->btnh", weights, jnp.repeat(v, repeat, 2))

        visual = draft.encode_video(batch, draft=True)
        x = draft.embed_prompt(batch, visual)
        width, at = x.shape[-1], jnp.asarray(batch.visual_index)[..., None]

        def deep(layer, x):
            block = visual[:, (layer + 1) * width : (layer + 2) * width]
            if block.shape[1] == 0:
                return x
            return jnp.where(at >= 0, x + block[jnp.maximum(at[..., 0], 0)], x)

        hidden, _ = draft.decoder.run_layers(
            x, jnp.asarray(batch.positions), attend, after_layer=deep
        )
        last = jnp.asarray(batch.lengths)[:, None, None] - 1
        return draft.decoder.logits(jnp.take_along_axis(hidden, last, axis=1)[:, 0])

    expected = jax.jit(hidden_prompt)(draft, batch)
    pruned = jax.jit(prune)(batch, jnp.asarray(kept))
    np.testing.assert_array_equal(pruned.lengths, visible.sum(1))
    found, _ = jax.jit(lambda m, i: m.prefill(i, 1, visual=m.encode_video(i, draft=True)))(
        draft, pruned
    )
    close(found, expected)
    for row, columns in enumerate(map(np.flatnonzero, visible)):
        taken = pruned.token_ids[row, : len(columns)]
        np.testing.assert_array_equal(taken, batch.token_ids[row, columns])


def check_split(case: FamilyCase) -> None:
    """Split over two devices: logits, and greedy tokens; of the tower too something is split."""
    whole, batch = model(case), inputs(case)
    home = Home.of(jax.make_mesh((2,), ("tp",), devices=jax.devices()[:2]))
    specs = specs_at(whole.config, declared(whole), home)
    for part in ("vision.", "decoder."):
        assert any("tp" in spec for path, spec in specs.items() if path.startswith(part))
    split = place_model(whole, home)
    last = reference(case).logits[:, -1]
    close(np.asarray(split(batch, last=True))[:, 0], last)
    found = hj.generate(split, batch, max_new_tokens=LIMIT, eos_token_ids=())
    np.testing.assert_array_equal(np.asarray(found.tokens)[:, :LIMIT], reference(case).tokens)


def lossless(case: FamilyCase, schedule: str, placement: Placement | None = None) -> None:
    """``hippo_generate`` says what transformers says, whatever the draft sees."""
    batch, both = inputs(case), pair(case)
    if placement is not None:
        both = placed(both, placement)
    config = hj.HippoConfig(gamma=3, keep_ratio=0.3, schedule=schedule)
    out = hj.hippo_generate(both, batch, max_new_tokens=LIMIT, eos_token_ids=(), config=config)
    np.testing.assert_array_equal(np.asarray(out.tokens)[:, :LIMIT], reference(case).tokens)
    own = np.asarray(batch.visual_tokens)
    wanted = np.where(own > 0, np.maximum(np.ceil(0.3 * own), 1), 0)
    np.testing.assert_array_equal(out.stats.visual_tokens, own)
    np.testing.assert_array_equal(out.stats.kept_visual_tokens, wanted)
    assert out.stats.acceptance_rate > 0.1


def check_sequential(case: FamilyCase) -> None:
    """One device."""
    lossless(case, "sequential")


def check_parallel(case: FamilyCase) -> None:
    """One device, by turns."""
    lossless(case, "parallel")


def check_one_program(case: FamilyCase) -> None:
    """A device for each, in one program."""
    lossless(case, "parallel", Placement.on(1, 1, one_program=True))


def check_two_meshes(case: FamilyCase) -> None:
    """A device for each, in programs of their own."""
    lossless(case, "parallel", Placement.on(1, 1))


def check_saved(case: FamilyCase, folder: Path, style: str, tied: bool) -> None:
    """``load_model`` on what transformers saves, ``style`` ``"saved"`` (its default names),
    ``"modules"`` or ``"hub"`` (the published names)."""
    hf = hf_model(case, tied)
    hf.save_pretrained(folder, save_original_format=style != "modules")
    if style == "hub":
        file = folder / "model.safetensors"
        tensors = {case.hub_name(name): x for name, x in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    loaded = load_model(folder, dtype="float32")
    assert loaded.config.text.tied is tied
    ours = convert(case, hf)
    expected, got = values(ours), values(loaded)
    assert set(got) == set(expected)
    for path, array in got.items():
        np.testing.assert_array_equal(np.asarray(array), np.asarray(expected[path]), err_msg=path)
    if tied and style == "saved":
        row: Row = next(row for row in case.rows() if not row.media)
        with torch.no_grad():
            theirs = hf(**case.hf_inputs([row])).logits.numpy()
        close(ours(assemble(ours, [row])), theirs)


def check_exported(case: FamilyCase, folder: Path, tied: bool) -> None:
    """``save_hf`` of a loaded model: the names of the published files, weights and config that we
    and transformers read back unchanged, and the oracle's logits to the last bit."""
    hf = hf_model(case, tied)
    theirs, ours = folder / "theirs", folder / "ours"
    hf.save_pretrained(theirs, save_original_format=True)
    # The tie may stand at two levels, and they may differ; the tensors decide.
    config = json.loads((theirs / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = not tied
    (theirs / "config.json").write_text(json.dumps(config))
    loaded = load_model(theirs, dtype="float32")
    save_hf(loaded, ours)
    config = json.loads((ours / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is tied
    expected = {case.hub_name(name): x for name, x in load_file(theirs / SINGLE_NAME).items()}
    found = load_file(ours / SINGLE_NAME)
    assert set(found) == set(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    again = load_model(ours, dtype="float32")
    assert again.config == loaded.config
    for path, array in values(again).items():
        np.testing.assert_array_equal(array, values(loaded)[path], err_msg=path)
    read, info = case.hf_class.from_pretrained(ours, output_loading_info=True, dtype=torch.float32)
    assert not any(info.values()), info
    given = case.hf_inputs(case.rows())
    with torch.no_grad():
        torch.testing.assert_close(
            read.eval()(**given).logits, hf(**given).logits, rtol=0.0, atol=0.0
        )


def check_damaged(case: FamilyCase) -> None:
    """Every number of ``config.json`` put out of its range is refused in one line or makes no
    difference to what is refused; never another exception."""
    plain = hf_model(case).config.to_dict()
    family = model(case).family
    for part in (None, "text_config", "vision_config"):
        fields = plain if part is None else plain[part]
        for key, value in fields.items():
            if isinstance(value, dict) or key in ("transformers_version", "_name_or_path"):
                continue
            for bad in (None, -1, 0, "many", [], 1.5, float("nan"), 10**30, {}):
                broken = json.loads(json.dumps(plain, default=str))
                (broken if part is None else broken[part])[key] = bad
                try:
                    family.config_from_hf(broken, None)
                except hj.HippoError as error:
                    assert "\n" not in str(error)


CHECKS = (
    check_names,
    check_visual_tokens,
    check_decoder_layers,
    check_logits,
    check_prefill,
    check_greedy,
    check_from_hf,
    check_table,
    check_features,
    check_pruned_prompt,
    check_split,
    check_parallel,
    check_damaged,
)
# What takes many seconds and says little more of a family.
LONGER = (check_sequential, check_one_program, check_two_meshes)
