"""InternVL3 in its transformers form (arXiv 2504.10479)."""
