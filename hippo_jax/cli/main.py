"""The program ``hippo``: finds the command, runs it, turns what goes wrong into one line.

A command is a module with ``add_parser(subparsers)``, which declares its arguments, and
``run(args) -> int``, which returns the exit status. Only the module of the command that was asked
for is imported, so ``hippo --version`` and ``hippo --help`` load nothing heavy.

Exit status: 0 done, 1 something failed, 2 bad arguments or input (what the user can mend),
130 interrupted, 141 the reader of our output went away.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from hippo_jax import __version__
from hippo_jax.errors import HippoError

# Command -> one line for `hippo --help`. The module is hippo_jax.cli.<command>.
COMMANDS = {
    "generate": "describe a video, or answer a question about it",
    "bench": "measure speed, beside transformers if asked",
    "eval": "evaluate a pair on a benchmark, resumable",
    "study": "the paper's experiments on a pair: a table, a CSV and a plot",
    "convert": "convert a Hugging Face checkpoint to one that loads quickly",
    "plan": "memory of a pair on given devices, from sizes alone",
    "train": "train the embedded pair from nothing",
    "doctor": "show what is installed: versions, devices, caches, the embedded pair",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``hippo`` with the given arguments (default: those of the process); the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        status = _dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, so that a reader that has gone away is noticed below
        return status
    except KeyboardInterrupt:
        if debug:
            raise
        print("hippo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Python flushes stdout once more at exit: give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # SIGPIPE, which Windows does not define
    except (HippoError, OSError) as error:
        if debug:
            raise
        print(f"hippo: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            raise
        print(
            f"hippo: internal error: {type(error).__name__}: {_one_line(error)} "
            "(add --debug to see where)",
            file=sys.stderr,
        )
        return 1


def _dispatch(arguments: list[str]) -> int:
    # The options of `hippo` itself take no values, so the first other word is the command.
    asked = next((word for word in arguments if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(
        prog="hippo", description="Speculative decoding for video language models in JAX."
    )
    parser.add_argument("--version", action="version", version=f"hippo_jax {__version__}")
    _add_debug(parser, default=False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    module = None
    for name, summary in COMMANDS.items():
        if name == asked:
            module = import_module(f"hippo_jax.cli.{name}")
            module.add_parser(subparsers)
            _add_debug(subparsers.choices[name], default=argparse.SUPPRESS)
        else:
            subparsers.add_parser(name, help=summary)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has said it all: --help, --version or a bad argument
        return int(stop.code or 0)
    if module is None:
        parser.print_help(sys.stderr)
        return 2
    return int(module.run(args))


def _add_debug(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument(
        "--debug",
        action="store_true",
        default=default,
        help="show a traceback when something fails",
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
