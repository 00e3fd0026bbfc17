"""Where the files that come with the library lie: pairs, their weights, their clips.

The same names resolve from a wheel, from an editable install and from a clone, whatever the
working directory:

    models/<pair>/             the pair's card: ``pair.toml``, tokenizer, notes
    models/<pair>/clips/       short videos to try it on
    checkpoints/<pair>/<role>/ weights, one folder a role (``target``, ``draft``)

In a clone these folders stand beside the package; a wheel carries those of the embedded pair in
``hippo_jax/_data``. Standard library only: the command line asks here before anything is loaded.
"""

from collections.abc import Iterable
from pathlib import Path

from hippo_jax.errors import HippoError

EMBEDDED_PAIR = "demo"
PAIR_FILE = "pair.toml"
CLIP_SUFFIXES = frozenset({".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"})

_PACKAGE = Path(__file__).resolve().parent


def data_root() -> Path:
    """The folder that holds ``models/`` and ``checkpoints/``."""
    packed = _PACKAGE / "_data"
    if packed.is_dir():
        return packed
    # A clone is known by its build file: beside an installed package `models/` is someone else's.
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        return _PACKAGE.parent
    raise HippoError(
        f"this install of hippo_jax has no data folder ({packed}); "
        "reinstall it from a complete wheel or clone"
    )


def pair_names() -> tuple[str, ...]:
    """Names of the pairs that have a card, sorted."""
    return tuple(
        sorted(file.parent.name for file in (data_root() / "models").glob(f"*/{PAIR_FILE}"))
    )


def pair_directory(name: str = EMBEDDED_PAIR) -> Path:
    """``models/<name>``: the folder with the pair's ``pair.toml``.

    Raises HippoError for a name that is not there.
    """
    names = pair_names()
    if name not in names:
        raise HippoError(f"there is no pair {name!r}; {_choices('pairs', names)}")
    return data_root() / "models" / name


def checkpoint_directory(name: str = EMBEDDED_PAIR, role: str = "target") -> Path:
    """``checkpoints/<name>/<role>``: the folder with the weights of one role of a pair.

    Raises HippoError for a pair or a role whose weights are not there.
    """
    folder = data_root() / "checkpoints"
    pairs = _folders(folder)
    if name not in pairs:
        raise HippoError(f"there are no weights of a pair {name!r}; {_choices('weights', pairs)}")
    roles = _folders(folder / name)
    if role not in roles:
        raise HippoError(
            f"the weights of {name!r} have no role {role!r}; {_choices('roles', roles)}"
        )
    return folder / name / role


def clip_names(pair: str = EMBEDDED_PAIR) -> tuple[str, ...]:
    """Names (without suffix) of the clips that come with a pair, sorted."""
    return tuple(sorted(_clips(pair)))


def clip(name: str | None = None, pair: str = EMBEDDED_PAIR) -> Path:
    """The video file of a clip, by its name with or without suffix; ``None`` is the first one.

    Raises HippoError for a name that is not there.
    """
    clips = _clips(pair)
    if name is None and clips:
        return clips[min(clips)]
    for known, path in clips.items():
        if name in (known, path.name):
            return path
    wanted = "any clip" if name is None else f"a clip {name!r}"
    raise HippoError(f"the pair {pair!r} does not have {wanted}; {_choices('clips', clips)}")


def _clips(pair: str) -> dict[str, Path]:
    folder = pair_directory(pair) / "clips"
    if not folder.is_dir():
        return {}
    return {file.stem: file for file in folder.iterdir() if file.suffix.lower() in CLIP_SUFFIXES}


def _folders(folder: Path) -> tuple[str, ...]:
    """Sorted names of the folders in a folder that may be missing."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))


def _choices(what: str, names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return f"{what} that exist: {listed or 'none'}"
