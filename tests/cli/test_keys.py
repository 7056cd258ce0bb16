import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glint.cli.app import app
from glint.cli.serving_options import needs_keys, num_replicas
from glint.core.errors import GlintError
from glint.settings import Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLINT_HOME", str(tmp_path))
    return tmp_path


def glint(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_key_is_shown_once_listed_without_itself_and_removed() -> None:
    made = json.loads(
        glint("keys", "add", "line-4", "--scope", "classify", "--scope", "batch", "--rate", "5", "--json")
    )
    listed = glint("keys", "list", "--json")
    (shown,) = json.loads(listed)["keys"]
    assert (shown["name"], shown["scopes"], shown["requests_per_s"]) == ("line-4", ["classify", "batch"], 5)
    assert made["key"] not in listed
    glint("keys", "remove", "line-4")
    assert json.loads(glint("keys", "list", "--json")) == {"keys": []}


def test_removing_a_key_that_is_not_there_names_those_that_are() -> None:
    glint("keys", "add", "line-4")
    with pytest.raises(GlintError, match="there are: line-4"):
        glint("keys", "remove", "line-5")


def test_keys_are_asked_for_beyond_loopback() -> None:
    assert not needs_keys("127.0.0.1", None, Settings())
    assert not needs_keys("0.0.0.0", False, Settings())
    with pytest.raises(GlintError, match=r"--host 0\.0\.0\.0 asks for API keys, and there is none"):
        needs_keys("0.0.0.0", None, Settings())
    glint("keys", "add", "line-4")
    assert needs_keys("0.0.0.0", None, Settings())
    assert needs_keys("127.0.0.1", True, Settings())


@pytest.mark.parametrize(("text", "expected"), [("1", 1), ("4", 4), ("1:4", (1, 4))])
def test_replicas_are_a_number_or_bounds(text: str, expected: object) -> None:
    assert num_replicas(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "4:1", "1:2:3", "many", "", ":"])
def test_other_replicas_are_refused(text: str) -> None:
    with pytest.raises(GlintError, match="--replicas"):
        num_replicas(text)
