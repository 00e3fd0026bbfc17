"""The program `hippo`: dispatch, exit statuses, and one line for what goes wrong."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import hippo_jax
from hippo_jax.cli import main as program
from hippo_jax.errors import HippoError

HIPPO = (sys.executable, "-m", "hippo_jax.cli.main")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., int]], None]:
    """Adds the command `probe` with an option --size, which does what it is told."""

    def add(action: Callable[..., int]) -> None:
        def add_parser(subparsers) -> None:
            subparsers.add_parser("probe").add_argument("--size", type=int)

        module = ModuleType("hippo_jax.cli.probe")
        module.__dict__.update(add_parser=add_parser, run=action)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(program.COMMANDS, "probe", "for tests")

    return add


def fail_with(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def test_arguments_reach_the_command_and_its_status_comes_back(command) -> None:
    seen: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> int:
        seen.append(args)
        return 7

    command(run)
    assert program.main(["probe", "--size", "3"]) == 7
    assert (seen[0].size, seen[0].debug) == (3, False)
    program.main(["--debug", "probe"])
    program.main(["probe", "--debug"])
    assert [args.debug for args in seen] == [False, True, True]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (HippoError("no video\n at x.mp4"), 2, "hippo: error: no video at x.mp4\n"),
        (
            FileNotFoundError(2, "No such file", "x"),
            2,
            "hippo: error: [Errno 2] No such file: 'x'\n",
        ),
        (KeyboardInterrupt(), 130, "hippo: interrupted\n"),
        (
            TypeError("odd"),
            1,
            "hippo: internal error: TypeError: odd (add --debug to see where)\n",
        ),
    ],
)
def test_a_failure_is_one_line_unless_debugging(command, capsys, error, status, line) -> None:
    command(fail_with(error))
    assert program.main(["probe"]) == status
    assert capsys.readouterr() == ("", line)
    with pytest.raises(type(error)):
        program.main(["probe", "--debug"])


@pytest.mark.parametrize(
    "arguments", [["fly"], ["--fly"], ["probe", "--size", "big"], ["probe", "x"]]
)
def test_bad_arguments_exit_with_2(command, capsys, arguments) -> None:
    command(lambda args: 0)
    assert program.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error:" in err


def test_without_a_command_the_help_goes_to_stderr(capsys) -> None:
    assert program.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(name in err for name in program.COMMANDS)


def test_every_command_module_is_a_command() -> None:
    folder = Path(program.__file__).parent
    modules = {file.stem for file in folder.glob("*.py") if "def add_parser(" in file.read_text()}
    assert modules == set(program.COMMANDS)


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_has_help(name: str, capsys) -> None:
    assert program.main([name, "--help"]) == 0
    assert f"usage: hippo {name}" in capsys.readouterr().out


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import sys; from hippo_jax.cli.main import main; main(['--version']); main(['--help'])\n"
        "assert not {'jax', 'flax', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"hippo_jax {hippo_jax.__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["doctor"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    # Unbuffered, argparse swallows the error itself and the status is 0: test the usual case.
    settings = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        [*HIPPO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        complaint = child.stderr.read()
    assert complaint == b""
    assert child.returncode == 141
