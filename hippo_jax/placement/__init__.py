"""Where target and draft live."""
