"""The Flax NNX video-LLMs: one folder a family, all sharing one decoder."""
