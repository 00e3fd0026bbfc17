"""LLaVA-OneVision (0.5B, 7B, 72B)."""
