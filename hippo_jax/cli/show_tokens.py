"""``--show-tokens OUT.png``: where the picture goes, checked early and written whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def picture_path(text: str) -> Path:
    """The file that was asked for, ``~`` expanded.

    Raises HippoError if no picture can be written there.
    """
    if not text:
        raise HippoError("--show-tokens is empty; name a picture, for example tokens.png")
    path = Path(os.path.expanduser(text))
    if path.suffix.lower() not in FORMATS:
        raise HippoError(
            f"--show-tokens {text}: the name must end in {', '.join(FORMATS)}; use tokens.png"
        )
    if path.is_dir():
        raise HippoError(f"--show-tokens {text} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise HippoError(f"--show-tokens {text}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise HippoError(f"--show-tokens {text}: nothing may be written to {path.parent}")
    return path


def write_picture(picture: Any, path: Path) -> None:
    """Write a ``PIL.Image``; under its own name it is whole or not there."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        picture.save(temporary, format=FORMATS[path.suffix.lower()])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
