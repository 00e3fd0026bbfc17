"""The embedded pair from nothing: its clips, its language, its tokenizer and its training."""
