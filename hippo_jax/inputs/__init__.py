"""From a video file and a prompt to what the models read."""
