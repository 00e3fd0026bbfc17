"""Qwen3-VL, the dense sizes (2B, 4B, 8B, 32B)."""
