"""The figures of a trained pair on held-out clips that went through an H.264 file."""

from __future__ import annotations

import tempfile
from typing import Any

from hippo_jax.training.codec import through_codec
from hippo_jax.training.evaluation import (
    Judge,
    agreement,
    greedy_texts,
    held_out_clips,
    score_greedy,
)
from hippo_jax.training.networks import Weights
from hippo_jax.training.recipe import skeletons


def measure(weights: dict[str, Weights], count: int, seed: int) -> dict[str, Any]:
    """Greedy captions of `count` clips (the three prompts in turn) scored by attribute, and the
    draft's teacher-forced agreement with them."""
    judge = Judge(skeletons())
    with tempfile.TemporaryDirectory() as folder:
        clips = held_out_clips(count, seed, through=lambda frames: through_codec(frames, folder))
    texts = greedy_texts(judge, weights["target"], clips)
    score = score_greedy(clips, texts)
    agreed = agreement(judge, weights["draft"], clips, texts)
    return {
        "clips": count,
        "seed": seed,
        "target": {
            "attributes_right": round(score.accuracy, 4),
            "captions_all_right": round(score.exact, 4),
            "by_attribute": {name: round(v, 4) for name, v in score.by_attribute().items()},
            "commonest_mistakes": [
                {"attribute": attribute, "truth": truth, "said": said, "times": times}
                for (attribute, truth, said), times in score.worst(8)
            ],
        },
        "draft_agreement": {
            "all_tokens": round(agreed.everything, 4),
            "content_words": round(agreed.content, 4),
            "random_tenth_of_tokens": round(agreed.tenth, 4),
            "no_video": round(agreed.no_video, 4),
        },
        "mean_caption_tokens": round(sum(len(t) + 1 for t in texts) / len(texts), 1),
    }
