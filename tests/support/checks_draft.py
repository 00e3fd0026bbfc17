"""Checks of the draft's side: what it sees, where it stands, what it may propose.

Mistakes here never change an answer. They cost acceptance, or show in the draft's own state.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax import scoring
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.pruning import prune
from hippo_jax.decoding.sampling import Greedy, Sampling
from hippo_jax.inputs.model_inputs import assemble
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.hippo import hippo_generate
from hippo_jax.scheduling.one_device import start
from hippo_jax.scheduling.plan import make_plan
from hippo_jax.scheduling.roles import propose
from hippo_jax.scoring.config import ScoringConfig
from support import pairs
from support.oracles import close
from support.pairs import Shape
from support.speculative_cases import MIXED, Case, same_or_near

BOTH = (Greedy(2.0), MIXED)


def unbanned(own: dict, which: VideoLMConfig | None = None) -> VideoLM:
    """A model that may say placeholders when it drafts; random targets do say them."""
    which = replace(which or pairs.config(), image_token_id=1000, video_token_id=1001)
    return pairs.build(own, which)


def check_identical_draft(schedule: str, samplers=BOTH) -> None:
    """A draft that is the target and sees everything is never refused, so the rounds are known.

    This is what an error on the draft's side shows in: a wrong slot, position, token or mask costs
    acceptance and nothing else.
    """
    for sampler in samplers:
        shape = Shape(schedule, 4, 2, 1.0, (), sampler)
        for seed in range(3):
            case = Case(shape, seed)
            own = values(case.pair.target)
            case.pair = ModelPair(unbanned(own), unbanned(own))
            case.limit = 22
            (_, _, stats), _, _ = case.recorded()
            assert stats.acceptance_rate == 1.0
            # The first token comes from the prefill; then gamma + 1 tokens a round, or gamma.
            rounds = -(-21 // 5) if schedule == "sequential" else 1 + -(-21 // 4)
            assert np.asarray(stats.rounds).tolist() == [rounds] * 2


def check_kept_everything() -> None:
    """Keeping every token through the pruned path is the same as not pruning."""
    case = Case(Shape("sequential", 3, 3, 1.0, ()), 1)
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), case.shape.config)
    own = np.asarray(case.inputs.visual_tokens)
    ordinals = np.arange(own.max())
    everything = np.where(ordinals < own[:, None], ordinals, -1)
    whole, pruned = (
        jax.jit(
            lambda pair, inputs, limit, kept: start(
                pair.target, pair.draft, inputs, limit, None, plan, kept=kept
            )
        )(case.pair, case.inputs, limit, kept)
        for kept in (None, jnp.asarray(everything))
    )
    for ours, theirs in zip(pruned.draft_cache.layers, whole.draft_cache.layers, strict=True):
        for row, length in enumerate(np.asarray(case.inputs.lengths)):
            for name in ("prompt_k", "prompt_v"):
                close(
                    getattr(ours, name)[row, :, :length],
                    getattr(theirs, name)[row, :, :length],
                    1e-5,
                )
    np.testing.assert_array_equal(pruned.draft_cache.prompt_lengths, case.inputs.lengths - 1)


def check_pruned_prompt() -> None:
    """The draft on a pruned prompt says what it says on the whole one with the rest hidden."""
    case = Case(Shape("sequential", 3, 4, 0.3, ()), 5)
    inputs, draft = case.inputs, case.pair.draft
    rng = np.random.default_rng(0)
    own = np.asarray(inputs.visual_tokens)
    kept = np.full((4, 6), -1)
    for row, count in enumerate(own):
        some = np.sort(rng.choice(count, min(count, 1 + row), replace=False))
        kept[row, : len(some)] = some
    assert (kept[:, 1] >= 0).sum() >= 2
    visible = np.zeros(inputs.token_ids.shape, bool)
    for row in range(4):
        columns = np.flatnonzero(inputs.visual_index[row] >= 0)
        visible[row, : inputs.lengths[row]] = True
        visible[row, np.delete(columns, kept[row][kept[row] >= 0])] = False

    def hidden_prompt(draft, inputs):
        def attend(layer, q, k, v):
            repeat = q.shape[2] // k.shape[2]
            scores = jnp.einsum("btnh,bsnh->bnts", q, jnp.repeat(k, repeat, 2)) * 8**-0.5
            causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
            scores = jnp.where(causal & visible[:, None, None], scores, -1e30)
            weights = jax.nn.softmax(scores, axis=-1)
            return jnp.einsum("bnts,bsnh->btnh", weights, jnp.repeat(v, repeat, 2))

        x = draft.embed_prompt(inputs, draft.encode_video(inputs))
        hidden, _ = draft.decoder.run_layers(x, jnp.asarray(inputs.positions), attend)
        last = jnp.asarray(inputs.lengths)[:, None, None] - 1
        return draft.decoder.logits(jnp.take_along_axis(hidden, last, axis=1)[:, 0])

    expected = jax.jit(hidden_prompt)(draft, inputs)
    pruned = jax.jit(lambda i, k: prune(i, k))(inputs, jnp.asarray(kept))
    np.testing.assert_array_equal(pruned.lengths, visible.sum(1))
    found, _ = jax.jit(lambda m, i: m.prefill(i, 1))(draft, pruned)
    close(found, expected, 1e-4)
    np.testing.assert_array_equal(pruned.next_position, inputs.next_position)
    for row in range(4):
        columns = np.flatnonzero(visible[row])
        length = len(columns)
        np.testing.assert_array_equal(
            pruned.token_ids[row, :length], inputs.token_ids[row, columns]
        )
        for name in ("text_columns", "query_columns"):
            new, old = (np.asarray(getattr(x, name))[row] for x in (pruned, inputs))
            np.testing.assert_array_equal(columns[new[new >= 0]], old[old >= 0])

    packed = prune(inputs, jnp.asarray(kept), positions="packed")
    np.testing.assert_array_equal(packed.next_position, packed.lengths)
    wanted = np.broadcast_to(np.arange(packed.token_ids.shape[1]), packed.positions.shape)
    np.testing.assert_array_equal(packed.positions, wanted)


def check_vocabularies() -> None:
    """A draft with more or fewer ids than its target: the answer stays, and what both know is
    accepted."""
    for size, sampler in ((24, MIXED), (40, Sampling(0.7))):
        shape = Shape("parallel", 3, 2, 1.0, (), sampler)
        case = Case(shape, 3)
        which = pairs.config(vocab_size=size)
        expected = case.plain()
        own, resized = values(case.pair.target), pairs.weights(0, which)
        least = min(size, pairs.VOCAB)
        for path, x in own.items():
            if path == "decoder.embedding":
                resized[path][:least] = x[:least]
            elif path == "decoder.head.kernel":
                resized[path][:, :least] = x[:, :least]
                resized[path][:, least:] *= 100  # ids that only the draft knows, it likes
            else:
                resized[path] = np.asarray(x)
        case.pair = ModelPair(unbanned(own), unbanned(resized, which))
        (tokens, lengths, stats), _, _ = case.recorded()
        assert same_or_near(case, expected, (tokens, lengths)) == 0
        assert stats.acceptance_rate > (0.2 if size < pairs.VOCAB else 0.99)


def check_selection() -> None:
    """``kept_indices`` are what the public scoring functions choose, model by model."""
    case = Case(Shape("sequential", 2, 8, 0.3, ()), 11)
    case.pair = ModelPair(case.pair.target, pairs.build(pairs.weights(77)))
    inputs, table = case.inputs, case.inputs.table
    for settings, layers in (
        (ScoringConfig(), 1),
        (ScoringConfig(attention_support="all", temporal=0.0, spatial=0.0), None),
        (ScoringConfig(selector="draft", attention=0.5, scope="per_frame"), None),
    ):
        model = case.pair.draft if settings.selector == "draft" else case.pair.target
        features = model.encode_video(inputs)
        expected = scoring.select_tokens(
            scoring.holistic_scores(
                scoring.attention_relevance(
                    model, inputs, support=settings.attention_support or "visual", layers=layers
                ),
                scoring.temporal_change(features, table),
                scoring.spatial_variance(features, table),
                table,
                weights=settings.weights,
            ),
            inputs,
            0.3,
            scope=settings.scope,
        )
        config = HippoConfig(2, 0.3, "sequential", settings, layers)
        found = jax.jit(
            lambda pair, inputs, config: (
                hippo_generate(
                    pair, inputs, max_new_tokens=1, capacity=2, config=config
                ).stats.kept_indices
            )
        )(case.pair, inputs, config)
        np.testing.assert_array_equal(found, expected)


def check_packed_draft() -> None:
    """A draft whose prompt is numbered anew goes on right behind it."""
    shape = Shape("sequential", 4, 1, 0.5, (), keywords=(("draft_positions", "packed"),))
    case = Case(shape, 0)
    row = pairs._row(np.random.default_rng(3), 4)
    case.inputs = assemble(case.pair.target, [row])
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), shape.config)
    state = jax.jit(
        lambda pair, inputs, limit: start(pair.target, pair.draft, inputs, limit, None, plan)
    )(case.pair, case.inputs, limit)
    kept = int((state.kept >= 0).sum())
    own = int(case.inputs.lengths[0]) - int(case.inputs.visual_tokens[0]) + kept
    assert int(state.draft_prompt.next_position[0]) == own
    assert int(state.target_prompt.next_position[0]) == int(case.inputs.next_position[0]) != own


def check_placeholders() -> None:
    """A draft that would say nothing but placeholders proposes other tokens."""
    case = Case(Shape("sequential", 3, 2, 1.0, ()), 2)
    own = {path: np.asarray(x) for path, x in values(case.pair.target).items()}
    head = own["decoder.head.kernel"].copy()
    loud = 50.0 * head[:, 5]
    for token in (pairs.IMAGE, pairs.VIDEO):
        head[:, token] = loud if token == pairs.IMAGE else -loud
    own["decoder.head.kernel"] = head
    draft = pairs.build(own)
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), case.shape.config)
    state = jax.jit(
        lambda target, draft, inputs, limit: start(target, draft, inputs, limit, None, plan)
    )(case.pair.target, draft, case.inputs, limit)
    proposal, _ = jax.jit(lambda draft, state: propose(draft, state, pairs.VOCAB, None, plan))(
        draft, state
    )
    assert not np.isin(proposal.chunk, (pairs.IMAGE, pairs.VIDEO)).any()
