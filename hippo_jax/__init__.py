"""hippo_jax: speculative decoding for video language models, in JAX.

``import hippo_jax as hj`` costs next to nothing: a name is imported from its module when it is
first touched, so nothing of jax, flax or transformers is loaded before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hippo_jax import scoring
    from hippo_jax.architectures.video_lm import VideoLM
    from hippo_jax.decoding.config import HippoConfig
    from hippo_jax.decoding.generate import Generation, generate
    from hippo_jax.decoding.sampling import Greedy, Sampling
    from hippo_jax.decoding.stats import SpeculationStats
    from hippo_jax.errors import HippoError
    from hippo_jax.inputs.model_inputs import ModelInputs
    from hippo_jax.inputs.prepare import prepare_inputs
    from hippo_jax.inputs.video import Video
    from hippo_jax.placement.pair import ModelPair, load_pair
    from hippo_jax.placement.placement import Placement
    from hippo_jax.placement.plan_memory import plan_memory
    from hippo_jax.resources import clip
    from hippo_jax.scheduling.hippo import hippo_generate
    from hippo_jax.scheduling.planner import plan_schedule
    from hippo_jax.scheduling.streaming import stream
    from hippo_jax.scheduling.warmup import warmup
    from hippo_jax.scoring.config import ScoringConfig
    from hippo_jax.weights.convert import convert
    from hippo_jax.weights.load import load_model

# Public name -> module that defines it. Keep in step with the imports above.
_HOME = {
    "clip": "hippo_jax.resources",
    "convert": "hippo_jax.weights.convert",
    "generate": "hippo_jax.decoding.generate",
    "Generation": "hippo_jax.decoding.generate",
    "Greedy": "hippo_jax.decoding.sampling",
    "hippo_generate": "hippo_jax.scheduling.hippo",
    "HippoConfig": "hippo_jax.decoding.config",
    "HippoError": "hippo_jax.errors",
    "load_model": "hippo_jax.weights.load",
    "load_pair": "hippo_jax.placement.pair",
    "ModelInputs": "hippo_jax.inputs.model_inputs",
    "ModelPair": "hippo_jax.placement.pair",
    "Placement": "hippo_jax.placement.placement",
    "plan_memory": "hippo_jax.placement.plan_memory",
    "plan_schedule": "hippo_jax.scheduling.planner",
    "prepare_inputs": "hippo_jax.inputs.prepare",
    "Sampling": "hippo_jax.decoding.sampling",
    "scoring": "hippo_jax",
    "ScoringConfig": "hippo_jax.scoring.config",
    "SpeculationStats": "hippo_jax.decoding.stats",
    "stream": "hippo_jax.scheduling.streaming",
    "Video": "hippo_jax.inputs.video",
    "warmup": "hippo_jax.scheduling.warmup",
    "VideoLM": "hippo_jax.architectures.video_lm",
}

__all__ = [
    "Generation",
    "Greedy",
    "HippoConfig",
    "HippoError",
    "ModelInputs",
    "ModelPair",
    "Placement",
    "Sampling",
    "ScoringConfig",
    "SpeculationStats",
    "Video",
    "VideoLM",
    "__version__",
    "clip",
    "convert",
    "generate",
    "hippo_generate",
    "load_model",
    "load_pair",
    "plan_memory",
    "plan_schedule",
    "prepare_inputs",
    "scoring",
    "stream",
    "warmup",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home == __name__:  # a module of names
        value = import_module(f"{home}.{name}")
    else:
        value = getattr(import_module(home), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
