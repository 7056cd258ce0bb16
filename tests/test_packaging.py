"""The project as a clone finds it: its pins, its Makefile, its files, and what it must never shadow."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
MAKE_VARIABLES = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTHON", "VENV", "TORCH_INDEX", "PYTEST_ARGS"}
# Spelt so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work/(?:main|shared|\.)|r[o]ot/|opt/(?:pypi|wheels)|Users/\w)")
PACKAGE_HOST = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|deb\.debian\.org|download\.pytorch\.org)"
)
IGNORED = [
    ".venv/bin/glint",
    ".glint/mlflow.db",
    "mlruns/0/meta.yaml",
    "mlflow.db",
    ".mypy_cache/x",
    "a/__pycache__/b.pyc",
]


def run(*command: str, cwd: Path = REPOSITORY, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command without the variables that a surrounding `make test` hands down, but with some more."""
    env = {name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES} | more
    return subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False)


def project() -> dict[str, object]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def pins(path: Path) -> dict[str, tuple[str, int]]:
    """The version and the number of hashes of each package in a constraints file."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if pin := re.match(r"([\w.-]+)==([^ ;\\]+)", line):
            name = pin[1]
            found[name] = (pin[2], 0)
        elif line.strip().startswith("--hash=sha256:"):
            found[name] = (found[name][0], found[name][1] + 1)
    return found


def kept_files() -> list[Path]:
    """Every file that git tracks or would add."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("needs a git checkout, to know which files belong to the project")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout.split("\0")
    return [REPOSITORY / name for name in listed if name and (REPOSITORY / name).is_file()]


def make_targets() -> list[str]:
    return re.findall(r"^  make ([a-z-]+) ", run("make", "help").stdout, flags=re.MULTILINE)


def test_platform_from_the_repository_root_is_the_standard_library() -> None:
    answer = run(sys.executable, "-c", "import platform, glint; print(platform.system(), platform.__file__)")
    assert answer.returncode == 0, answer.stderr
    assert not answer.stdout.split()[1].startswith(str(REPOSITORY / "platform"))


def test_platform_folder_holds_only_the_package() -> None:
    names = {path.name for path in (REPOSITORY / "platform").iterdir()}
    assert names - {"__pycache__"} == {"glint"}


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in (REPOSITORY / "platform/glint").rglob("*.py")}
    # Without an __init__.py the import contracts would pass a folder over in silence.
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_package_says_that_it_is_typed() -> None:
    assert (REPOSITORY / "platform/glint/py.typed").exists()


def test_constraints_hold_no_addresses() -> None:
    text = (REPOSITORY / "constraints.txt").read_text()
    assert [word for word in ("http://", "https://", "--index-url", "--find-links", "file:") if word in text] == []


def test_every_pin_has_hashes() -> None:
    assert [name for name, (_, hashes) in pins(REPOSITORY / "constraints.txt").items() if hashes == 0] == []


def test_every_direct_dependency_is_pinned_as_the_project_asks() -> None:
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    asked = table["project"]["dependencies"] + table["project"]["optional-dependencies"]["dev"]
    asked += table["build-system"]["requires"]
    pinned = pins(REPOSITORY / "constraints.txt")
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt: run make lock"
        assert requirement.specifier.contains(pinned[name][0]), f"{requirement} is pinned to {pinned[name][0]}"


def test_help_is_the_default_and_lists_what_the_guide_names() -> None:
    assert run("make").stdout == run("make", "help").stdout
    assert {"setup", "demo", "check", "test", "test-all", "lock", "clean", "help"} <= set(make_targets())


def test_every_target_in_help_exists() -> None:
    for target in make_targets():
        answer = run("make", "--dry-run", target)
        assert answer.returncode == 0, f"make {target}: {answer.stderr}"


def test_test_all_runs_each_step_once() -> None:
    steps = run("make", "--dry-run", "test", "test-all").stdout
    assert [steps.count(step) for step in ("/mypy ", "--dist loadfile \n", " -m slow")] == [1, 1, 1]


def test_wrong_python_gets_one_clear_line(tmp_path: Path) -> None:
    answer = run("make", "setup", f"VENV={tmp_path / 'venv'}", "PYTHON=python9.9")
    assert answer.returncode != 0
    assert answer.stderr.splitlines()[0] == (
        "PYTHON=python9.9 is not a Python 3.11, which glint needs: name one with make PYTHON=/path/to/python3.11"
    )


def test_python_without_venv_gets_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError")
    answer = run("make", "setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}", PYTHONPATH=str(tmp_path))
    assert answer.returncode != 0
    assert answer.stderr.splitlines()[0] == (
        f"PYTHON={sys.executable} cannot make virtual environments: install its venv package (Debian: python3.11-venv)"
    )


def test_another_torch_index_leaves_cuda_out_and_keeps_the_other_pins(tmp_path: Path) -> None:
    (tmp_path / ".python").touch()
    answer = run("make", f"VENV={tmp_path}", f"{tmp_path}/without-torch.txt")
    assert answer.returncode == 0, answer.stderr
    everything, kept = pins(REPOSITORY / "constraints.txt"), pins(tmp_path / "without-torch.txt")
    left_out = everything.keys() - kept.keys()
    assert {"torch", "torchvision"} <= left_out
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in left_out)
    assert all(kept[name] == everything[name] for name in kept)


def test_another_torch_index_is_asked_for_the_pinned_torch(tmp_path: Path) -> None:
    index = "https://wheels.example/cpu"
    steps = run("make", "--dry-run", "setup", f"VENV={tmp_path}", f"TORCH_INDEX={index}").stdout
    assert f"--default-index '{index}'" in steps
    assert "-r constraints.txt" not in steps


def test_version_is_the_newest_in_the_changelog() -> None:
    newest = re.search(r"^## \[([^\]]+)\]", (REPOSITORY / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] in (project()["version"], "Unreleased")


def test_licence_is_apache_2() -> None:
    text = (REPOSITORY / "LICENSE").read_text()
    assert project()["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "The glint authors" in text


@pytest.mark.parametrize("path", IGNORED)
def test_git_ignores_what_is_made_on_this_machine(path: str) -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("needs a git checkout, to ask git what it ignores")
    assert run("git", "check-ignore", "--no-index", "--quiet", path).returncode == 0


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    found = []
    for path in kept_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture names nobody
        hits = [hit[0] for pattern in (MACHINE_PATH, PACKAGE_HOST) for hit in pattern.finditer(text)]
        found += [f"{path.relative_to(REPOSITORY)}: {hit}" for hit in hits]
    assert found == []
