"""Inside the library a module imports only what comes before it in the flow of data."""

import ast
import re
from pathlib import Path

import pytest

import hippo_jax

ORDER = (
    "inputs",
    "architectures",
    "weights",
    "scoring",
    "decoding",
    "placement",
    "scheduling",
    "benchmark",
    "training",
    "studies",
    "evaluation",
    "cli",
)
PACKAGE = Path(hippo_jax.__file__).parent
README = Path(__file__).parents[1] / "README.md"


def imported(file: Path) -> set[str]:
    """Packages of the library that a module imports when it is imported itself."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hippo_jax."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
            names |= {parts[1] for parts in found if parts[0] == "hippo_jax" and len(parts) > 1}
    return names & set(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_what_comes_before_it(package: str) -> None:
    later = set(ORDER[ORDER.index(package) + 1 :])
    wrong = {
        str(file.relative_to(PACKAGE)): sorted(imported(file) & later)
        for file in (PACKAGE / package).rglob("*.py")
        if imported(file) & later
    }
    assert not wrong


def test_every_package_has_its_place_and_the_readme_says_so() -> None:
    packages = {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")}
    assert packages == set(ORDER)
    readme = README.read_text()
    said = re.search(r"imports run only that way:\n(.*?)\.\n", readme, re.DOTALL)
    assert said is not None
    assert tuple(re.findall(r"`(\w+)`", said[1])) == ORDER
