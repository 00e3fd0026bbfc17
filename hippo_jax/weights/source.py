"""From what the user names (directory or hub id) to a directory on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from hippo_jax.errors import HippoError

# Weights, configs, tokenizers, processors and chat templates; no code and no pickles. Files in
# sub-folders (other formats of the same weights) are left where they are.
WEIGHTS = ("*.safetensors",)
SIDE_FILES = ("*.json", "*.txt", "*.jinja", "*.model")
_NOT = ("*/*",)
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def locate(
    source: str | os.PathLike[str], revision: str | None = None, *, weights: bool = True
) -> Path:
    """The directory of a checkpoint; a hub id is downloaded first (or found in the hub's cache).

    Args:
        source: an existing directory, or ``organisation/name`` on the Hugging Face hub.
        revision: branch, tag or commit on the hub; an error with a directory.
        weights: whether weights are to be downloaded too; all other files are.

    Raises:
        HippoError: no such directory; unknown, gated or unreachable hub repository.
    """
    text = os.fspath(source)
    if not isinstance(text, str) or not text or "\0" in text:
        raise HippoError(f"source {source!r}: give a directory or a hub id")
    path = Path(text).expanduser()
    if path.is_dir():
        if revision is not None:
            raise HippoError(f"{text}: a revision goes with a hub id, this is a directory")
        return path
    if path.exists():
        raise HippoError(f"{text}: this is a file; give the directory that holds config.json")
    if not isinstance(source, str) or not _HUB_ID.match(text):
        hint = "" if _looks_like_path(text) else " (a hub id has the form organisation/name)"
        raise HippoError(f"{text}: no such directory{hint}")
    return _download(text, revision, (*SIDE_FILES, *WEIGHTS) if weights else SIDE_FILES)


def side_files(directory: Path) -> list[Path]:
    """What makes weights a complete model: config, tokenizer, processor, chat template files."""
    return [
        path
        for path in sorted(directory.iterdir())
        if any(fnmatch(path.name, pattern) for pattern in SIDE_FILES)
        and not path.name.endswith(".index.json")
        and path.is_file()
    ]


def _looks_like_path(text: str) -> bool:
    return text[0] in "./~\\" or text.endswith(("/", "\\")) or text.count("/") > 1


def _download(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    at = name if revision is None else f"{name} at revision {revision!r}"
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(_NOT)
            )
        )
    except hub.GatedRepoError:
        reason = "the hub asks for access first: request it there, then `hf auth login`"
    except hub.RevisionNotFoundError:
        reason = "the hub repository has no such revision"
    except hub.RepositoryNotFoundError:
        reason = "neither a directory here nor a repository on the hub (or it is private)"
    except hub.HFValidationError as error:
        reason = f"no valid hub id: {_line(error)}"
    except hub.LocalEntryNotFoundError as error:
        reason = _not_here(error)
    except Exception as error:
        # Also those of the client's HTTP library, which it lets through, whichever that is.
        raise HippoError(
            f"{at}: download from the hub failed: {_line(error)}; try again, files that are whole"
            " are kept"
        ) from error
    raise HippoError(f"{at}: {reason}")


def _not_here(error: Exception) -> str:
    """Why neither hub nor cache gave the files, with what to do."""
    # What the hub answered: it fails, or has had enough of us.
    status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
    hub = "cannot be reached; connect" if status is None else f"answers {status}; try again later"
    # The name of the error, because huggingface_hub has it from 2.0 on only.
    if type(error).__name__ == "IncompleteSnapshotError":
        return f"an earlier download was not finished, and the hub {hub}: it goes on where it was"
    return (
        f"not a directory here, not in the hub's cache, and the hub {hub},"
        " or give the directory of a copy"
    )


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
