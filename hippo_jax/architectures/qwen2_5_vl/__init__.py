"""Qwen2.5-VL (3B, 7B, 32B, 72B)."""
