"""The paper's experiments as commands: ``hippo study NAME``."""
