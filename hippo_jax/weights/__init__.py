"""Weights: safetensors files to sharded arrays, converted checkpoints, export."""
