"""Telling two sources apart without reading all of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.weights import manifest
from hippo_jax.weights.checkpoint import Checkpoint, open_checkpoint

_SAMPLE = 4096


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over the config, every tensor's name, dtype and shape, and samples of its bytes.

    Samples are the first, middle and last four kilobytes of each tensor, so that two fine-tunings
    of one model differ and a copy in another place does not.
    """
    digest = hashlib.sha256((checkpoint.directory / "config.json").read_bytes())
    by_file: dict[Path, list[str]] = {}
    for path, tensor in checkpoint.tensors.items():
        by_file.setdefault(tensor.file, []).append(path)
    samples: dict[str, bytes] = {}
    for file, paths in by_file.items():
        with file.open("rb") as stream:
            for path in paths:
                tensor = checkpoint.tensors[path]
                parts = []
                for start in (0, tensor.size // 2, max(0, tensor.size - _SAMPLE)):
                    stream.seek(tensor.offset + start)
                    parts.append(stream.read(min(_SAMPLE, tensor.size - start)))
                samples[path] = b"".join(parts)
    # In the order of names, however the tensors are spread over files.
    for path in sorted(samples):
        tensor = checkpoint.tensors[path]
        digest.update(f"{path} {tensor.dtype} {tensor.shape} ".encode())
        digest.update(samples[path])
    return digest.hexdigest()


def identity(model: VideoLM) -> str:
    """What tells a model's weights from others, wherever their files are.

    Raises:
        HippoError: it has no files.
    """
    if model.source is None:
        raise HippoError("only models with files can be told apart; load them with load_pair")
    directory = Path(model.source)
    if manifest.is_finished(directory):
        found = manifest.read_manifest(directory)
        return f"{found.fingerprint} as {found.dtype}"
    return fingerprint(open_checkpoint(directory))
