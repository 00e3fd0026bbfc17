"""What `import hippo_jax` offers, and that it costs nothing until it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hippo_jax as hj


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", hj.__all__)
def test_every_public_name_resolves_and_is_listed(name: str) -> None:
    assert getattr(hj, name) is not None
    assert name in dir(hj)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = hj.no_such_name


def test_type_checkers_see_the_names_that_users_see() -> None:
    tree = ast.parse(Path(hj.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == hj._HOME
    assert set(hj.__all__) == {*hj._HOME, "__version__"}


def test_the_import_loads_nothing_but_itself() -> None:
    loaded = run_python(
        "import sys; before = set(sys.modules); import hippo_jax; dir(hippo_jax)\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    assert loaded.split() == ["hippo_jax"] or not set(loaded.split()) - {
        "hippo_jax",
        *sys.stdlib_module_names,
    }


def test_the_plain_names_need_no_jax() -> None:
    loaded = run_python(
        "import sys, hippo_jax as hj; hj.HippoError; hj.__version__\n"
        "print([name for name in ('jax', 'flax', 'transformers', 'numpy') if name in sys.modules])"
    )
    assert loaded == "[]"


def test_hippo_error_is_a_value_error() -> None:
    assert issubclass(hj.HippoError, ValueError)
