"""LLaVA-OneVision: the odd frames of ``support.tiny_llava``."""

import dataclasses

from hippo_jax.architectures.llava_onevision import layout, processor, vision
from hippo_jax.architectures.norm import LayerNorm
from hippo_jax.inputs.square_frames import SquareFrames
from support import checks_families, checks_llava, checks_llava_inputs, tiny_llava

MUTANTS = (
    (
        "exact GELU in the tower",
        (vision.gelu_tanh, "approximate=True", "approximate=False"),
        checks_llava.check_activations,
    ),
    (
        "approximate GELU in the projector",
        (vision.Projector.__call__, "approximate=False", "approximate=True"),
        checks_llava.check_activations,
    ),
    (
        "the last norm applied",
        (vision.VisionTower.features, "return x", "return self.unused_norm(x)"),
        checks_llava.check_features,
    ),
    (
        "learned places left out",
        (vision.VisionTower.embed_patches, "+ places)", "+ 0 * places)"),
        checks_llava.check_patch_embedding,
    ),
    (
        "attention across frames",
        (vision.VisionTower.features, "reshape(-1, self.config.side**2)", "reshape(1, -1)"),
        checks_llava.check_features,
    ),
    (
        "pooling with corners aligned",
        (
            vision.halving,
            "(np.arange(new) + 0.5) * (size / new) - 0.5",
            "np.arange(new) * (size - 1) / max(new - 1, 1)",
        ),
        checks_llava.check_pooling,
    ),
    (
        "the last row of an odd side dropped",
        (vision.halving, "-(-size // 2)", "max(size // 2, 1)"),
        checks_llava.check_pooling,
    ),
    (
        "pooled places turned",
        (vision.pool, "by,fyad->fbad", "by,fyad->fabd"),
        checks_llava.check_pooling,
    ),
    (
        "the mean kept by the norm",
        (LayerNorm.__call__, "x32 - jnp.mean", "x32 - 0 * jnp.mean"),
        checks_llava.check_norms,
    ),
    (
        "the newline before the video",
        (layout.media_tokens, "extra[-1] = 0", "extra[0] = 0"),
        checks_families.check_table,
    ),
    (
        "the newline one token early",
        (layout.media_tokens, "extra[-1] = 0", "extra[-2] = 0"),
        checks_llava.check_newlines,
    ),
    (
        "the newline left empty",
        (vision.VisionTower.__call__, "self.newline[...][None]", "0 * self.newline[...][None]"),
        checks_families.check_visual_tokens,
    ),
    (
        "patches of a mapping by columns",
        (layout._media, "transpose(0, 2, 4, 1, 3, 5)", "transpose(0, 4, 2, 1, 3, 5)"),
        checks_families.check_from_hf,
    ),
    (
        "steps between frames rounded, not cut off",
        (
            processor.Processor.spread,
            "np.arange(count) * total // count",
            "np.rint(np.arange(count) * total / count).astype(int)",
        ),
        checks_llava_inputs.check_sampling,
    ),
    (
        "no placeholder for the newline",
        (processor.Processor.spell, ") ** 2 + 1", ") ** 2"),
        checks_llava_inputs.check_ids,
    ),
    (
        "frames resized to what the patches cover",
        (
            SquareFrames._cut,
            "resize_frames(frames, self.side, self.side)[:, :covered, :covered]",
            "resize_frames(frames, covered, covered)",
        ),
        checks_llava_inputs.check_pixels,
    ),
)

CASE = dataclasses.replace(
    tiny_llava.ODD,
    modules=(
        checks_llava.check_patch_embedding,
        checks_llava.check_vision_blocks,
        checks_llava.check_features,
        checks_llava.check_visual_tokens,
        checks_llava.check_activations,
        checks_llava.check_pooling,
        checks_llava.check_norms,
        checks_llava.check_even_frames,
        checks_llava.check_newlines,
        checks_llava.check_relevance,
    ),
    mutants=MUTANTS,
)
