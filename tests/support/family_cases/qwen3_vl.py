"""A tiny Qwen3-VL pair: timestamps between frames, deepstack features, towers that differ."""

from transformers import Qwen3VLForConditionalGeneration

from hippo_jax.architectures import video_lm
from hippo_jax.architectures.qwen3_vl import layout, processor, vision
from hippo_jax.inputs.processor import ProcessorConfig
from support import checks_qwen3_vl as checks
from support import checks_qwen3_vl_inputs as inputs
from support import checks_qwen3_vl_model as whole
from support import tiny_qwen3_vl as tiny
from support.families import FamilyCase

MUTANTS = (
    (
        "position table read with corners not aligned",
        (vision.PositionTable.__call__, "jnp.maximum(sizes - 1, 1)", "sizes"),
        checks.check_tower_input,
    ),
    (
        "exact GELU in the tower",
        (vision.VisionBlock.activation, "approximate=True", "approximate=False"),
        checks.check_mlp,
    ),
    (
        "features of layers one early",
        (vision.VisionTower.__call__, "index in self", "index + 1 in self"),
        checks.check_features,
    ),
    (
        "sizes of frames as if all were square",
        (layout.build_vision_layout, "np.tile((h, w)", "np.tile((h, h)"),
        checks.check_tower_input,
    ),
    (
        "height and width exchanged",
        (layout.rope_positions, "(kind, (1, h, w), seconds)", "(kind, (1, w, h), seconds)"),
        checks.check_positions,
    ),
    (
        "features numbered anew in a pruned prompt",
        (
            video_lm.VideoLM._add_deep,
            "jnp.maximum(own, 0)",
            "jnp.maximum(jnp.cumsum(own >= 0, axis=1) - 1, 0)",
        ),
        whole.check_pruned,
    ),
    (
        "features forgotten where a prefill is cut",
        (video_lm.VideoLM._prompt_layers, "deep = begun.deep", "deep = None"),
        whole.check_cut,
    ),
    (
        "frames sampled without the last",
        (
            processor.Processor.frame_indices,
            "np.linspace(0, total - 1, count)",
            "np.linspace(0, total, count, endpoint=False)",
        ),
        inputs.check_sampling,
    ),
    (
        "bounds of one frame, not of the clip",
        (processor.Processor.frame_size, "counted * math.prod(sides) > most", "1 > most"),
        inputs.check_sizes,
    ),
    (
        "frames counted one by one where bounds are looked at",
        (processor.Processor.frame_size, "round(frames / group) * group", "frames"),
        inputs.check_sizes,
    ),
    (
        "a resized video is resized again",
        (ProcessorConfig.encode_video, "if video.sized", "if False"),
        inputs.check_reading,
    ),
    (
        "timestamps of first frames",
        (
            processor.unit_times,
            "(times[::group] + times[group - 1 :: group]) / 2",
            "times[::group]",
        ),
        inputs.check_chats,
    ),
    (
        "marks around the whole video stay",
        (processor.Processor.spell, "outer if outer in text else marks.video", "marks.video"),
        inputs.check_chats,
    ),
)

CASE = FamilyCase(
    name="qwen3_vl",
    hf_class=Qwen3VLForConditionalGeneration,
    hf_config=lambda tied: tiny.hf_config("target", tied),
    rows=tiny.batch_rows,
    hf_inputs=tiny.hf_inputs,
    placeholders=(tiny.IMAGE, tiny.VIDEO),
    scored=tiny.scored,
    modules=(
        checks.check_tower_input,
        checks.check_vision_blocks,
        checks.check_features,
        checks.check_other_tower,
        checks.check_mergers,
        checks.check_mlp,
        checks.check_norms,
        checks.check_positions,
        whole.check_pruned,
    ),
    mutants=MUTANTS,
    draft=lambda: tiny.model("draft"),
)
