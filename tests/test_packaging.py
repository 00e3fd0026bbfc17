"""The wheel and the editable install carry the package and its data, and find them anywhere.

Both are made from a small copy of the project with stand-in data, so that the tests do not depend
on the size of the real weights.
"""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import hippo_jax
from hippo_jax.cli.main import COMMANDS

PROJECT = Path(__file__).resolve().parents[1]
DATA_FILES = (
    "models/demo/pair.toml",
    "models/demo/clips/street.mp4",
    "checkpoints/demo/target/model.safetensors",
    "checkpoints/demo/draft/model.safetensors",
)
FIND = """
from pathlib import Path
from hippo_jax import resources
assert resources.clip().read_text() == "models/demo/clips/street.mp4"
for role in ("target", "draft"):
    weights = resources.checkpoint_directory("demo", role) / "model.safetensors"
    assert weights.read_text() == f"checkpoints/demo/{role}/model.safetensors"
print(Path(resources.__file__).parent)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with stand-in data, one converted checkpoint and one foreign pair."""
    copy = tmp_path_factory.mktemp("project")
    for file in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(PROJECT / file, copy)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "hippo_jax", copy / "hippo_jax", ignore=ignored)
    for file in (*DATA_FILES, "models/large/pair.toml", "checkpoints/large/target/x.safetensors"):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_text(file)
    return copy


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=project)
    (built,) = folder.glob("*.whl")
    return built


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def pip_install(target: Path, *what: str) -> None:
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    command = (sys.executable, "-m", "pip", "install", "--quiet", *offline)
    run(*command, "--target", str(target), *what, cwd=target.parent)


def found_from(site: Path, cwd: Path) -> Path:
    """Run FIND in a bare interpreter that knows only `site`; the package folder it used."""
    # -S -E: neither this environment's packages nor its variables; addsitedir reads .pth files.
    code = f"import site; site.addsitedir({str(site)!r})\n{FIND}"
    return Path(run(sys.executable, "-S", "-E", "-c", code, cwd=cwd))


def test_the_wheel_holds_the_package_and_only_the_embedded_pair(project: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        file.relative_to(project).as_posix()
        for kind in ("*.py", "*.json")
        for file in (project / "hippo_jax").rglob(kind)
    }
    assert "hippo_jax/cli/main.py" in sources
    assert "hippo_jax/architectures/published/qwen2.5-vl-7b.json" in sources
    assert sources <= names
    assert "hippo_jax/py.typed" in names
    assert {name for name in names if "/_data/" in name} == {
        f"hippo_jax/_data/{file}" for file in DATA_FILES
    }
    strangers = {name for name in names if name.split("/")[0] != "hippo_jax"}
    assert all(".dist-info/" in name for name in strangers), strangers


def test_the_wheel_s_metadata_name_the_program_and_the_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = {
        Path(name).name: archive.read(name).decode()
        for name in archive.namelist()
        if ".dist-info/" in name
    }
    assert "hippo = hippo_jax.cli.main:main" in info["entry_points.txt"]
    assert "Apache License" in info["LICENSE"]
    assert "Requires-Python: >=3.11" in info["METADATA"]
    for extra in ("cuda12", "cuda13", "tpu", "test", "notebooks", "peer"):
        assert f"Provides-Extra: {extra}\n" in info["METADATA"]


def test_an_installed_wheel_finds_its_data_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    pip_install(tmp_path / "site", str(wheel))
    (tmp_path / "elsewhere").mkdir()
    assert found_from(tmp_path / "site", tmp_path / "elsewhere") == tmp_path / "site" / "hippo_jax"


def test_an_editable_install_finds_its_data_from_anywhere(project: Path, tmp_path: Path) -> None:
    pip_install(tmp_path / "site", "--editable", str(project))
    assert not (tmp_path / "site" / "hippo_jax").exists()
    (tmp_path / "elsewhere").mkdir()
    assert found_from(tmp_path / "site", tmp_path / "elsewhere") == project / "hippo_jax"


def test_a_clone_finds_its_data_from_inside_the_package(project: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(project)!r})\n{FIND}"
    assert run(sys.executable, "-S", "-E", "-c", code, cwd=project / "hippo_jax" / "cli") == str(
        project / "hippo_jax"
    )


def test_ci_runs_the_readme_s_commands() -> None:
    readme, ci = (PROJECT / "README.md").read_text(), (PROJECT / ".ci" / "run").read_text()
    assert 'pip install ".[test]" && pytest' in readme
    assert "pip install . && hippo generate" in readme
    assert ".[test]" in ci
    assert "\nstep tests pytest\n" in ci


def test_the_readme_names_only_what_exists_and_every_command() -> None:
    readme = (PROJECT / "README.md").read_text()
    assert set(re.findall(r"`hippo ([a-z]+)", readme)) == set(COMMANDS)
    assert set(re.findall(r"\bhj\.(\w+)", readme)) <= set(hippo_jax.__all__)
    offered = set(
        tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )
    assert set(re.findall(r"\.\[(\w+)\]", readme)) <= offered
