"""glint batch results: outcomes chosen by status, label, decision and confidence."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
import typer
from tests.stores.store_documents import chunk_of, job, outcome
from typer.testing import CliRunner

from glint.adapters.sqlite_store import SqliteStore
from glint.cli import batch, batch_jobs, remote
from glint.cli.batch import results
from glint.client import Client
from glint.core.errors import GlintError
from glint.core.outcome import Outcome
from glint.core.stores import Bridge
from glint.serving.batch_answers import Retry

NUM = 99


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """The outcomes of the job `first`, which lies in the store of the settings."""
    monkeypatch.setenv("GLINT_HOME", str(tmp_path))
    monkeypatch.delenv("GLINT_STORE", raising=False)
    store, bridge = SqliteStore(tmp_path / "results.db"), Bridge()
    bridge.run(store.put_job(job("first")))
    bridge.run(store.put_chunk(*chunk_of("first", 0, NUM)))
    bridge.run(store.close())
    bridge.close()
    return [outcome("first", number) for number in range(NUM)]


def call(*arguments: str):
    app = typer.Typer()
    app.command()(results)
    return CliRunner().invoke(app, ["first", *arguments])


@pytest.mark.parametrize(
    ("arguments", "passes"),
    [
        (["--status", "missing"], lambda row: row.status == "missing"),
        (["--label", "open"], lambda row: row.label == "open"),
        (["--label", "none has it"], lambda row: False),
        (["--decision", "review"], lambda row: row.decision == "review"),
        (["--min-confidence", "0.9"], lambda row: row.confidence is not None and row.confidence >= 0.9),
        (["--max-confidence", "0"], lambda row: row.confidence == 0),
        (
            ["--decision", "reject", "--label", "short", "--min-confidence", "0.2", "--max-confidence", "0.5"],
            lambda row: row.decision == "reject" and row.label == "short" and 0.2 <= row.confidence <= 0.5,
        ),
    ],
)
def test_options_choose_the_outcomes_that_are_shown(stored: list[Outcome], arguments: list[str], passes) -> None:
    wanted = {row.uri for row in stored if passes(row)}
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output
    assert {row["uri"] for row in json.loads(done.stdout)["outcomes"]} == wanted
    table = call(*arguments, "--limit", "1000").stdout
    assert f"{len(wanted)} " in table.splitlines()[-1]
    assert len(call(*arguments, "--format", "csv").stdout.splitlines()) == len(wanted) + 1


def test_no_outcome_that_passes_leaves_the_columns(stored: list[Outcome], tmp_path: Path) -> None:
    assert call("--label", "none has it", "--format", "csv").stdout.startswith("uri,etag,status,label,confidence,")
    file = tmp_path / "none.parquet"
    call("--label", "none has it", "--format", "parquet", "--out", str(file))
    table = pq.read_table(file)
    assert (table.num_rows, table.column_names[:4]) == (0, ["uri", "etag", "status", "label"])


def test_a_file_is_written_whatever_else_is_asked(stored: list[Outcome], tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    told = json.loads(call("--json", "--out", str(file)).stdout)
    assert told == {"num_outcomes": NUM, "file": str(file)}
    assert len(file.read_text().splitlines()) == NUM + 1
    refused = call("--out", str(tmp_path / "all.txt"))
    assert "all.txt must end in .csv or .parquet" in str(refused.exception)


def test_a_table_says_of_how_many_where_the_totals_know(stored: list[Outcome]) -> None:
    num_open = sum(row.label == "open" for row in stored)
    num_review = sum(row.decision == "review" for row in stored)
    assert f"3 of {NUM} outcomes shown" in call("--limit", "3").stdout
    assert f"3 of {num_open} outcomes shown" in call("--limit", "3", "--label", "open").stdout
    assert f"3 of {num_review} outcomes shown" in call("--limit", "3", "--decision", "review").stdout
    assert "\n3 outcomes shown" in call("--limit", "3", "--min-confidence", "0.1").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--status", "okay"], "--status 'okay' must be one of ok, undecodable"),
        (["--decision", "keep"], "--decision 'keep' must be one of accept, review, reject"),
        (
            ["--min-confidence", "0.9", "--max-confidence", "0.2"],
            "--min-confidence and --max-confidence must be a range within 0 and 1, got 0.9 to 0.2",
        ),
        (["--max-confidence", "50"], "--min-confidence and --max-confidence must be a range within 0 and 1"),
    ],
)
def test_a_choice_that_nothing_could_pass_is_named(stored: list[Outcome], arguments: list[str], said: str) -> None:
    done = call(*arguments)
    assert isinstance(done.exception, GlintError)
    assert str(done.exception).startswith(said)


def test_an_option_that_json_cannot_carry_is_refused_before_it_is_sent() -> None:
    assert batch_jobs.options_of(["top_k=3", "ttl_days=null", "error_threshold=5%"]) == {
        "top_k": 3,
        "ttl_days": None,
        "error_threshold": "5%",
    }
    for number in ("Infinity", "NaN", "1e999"):
        with pytest.raises(GlintError, match=f"--option 'ttl_days={number}' must be a finite number"):
            batch_jobs.options_of([f"ttl_days={number}"])
    with pytest.raises(ValueError, match="ttl_days must be a finite number"):
        Retry(options={"ttl_days": float("inf")})


SERVER = "http://glint.example.com:8000"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whom the verbs ask, where every server has the completed job `first` with one outcome."""
    asked: list[str] = []
    progress = {"id": "first", "status": "completed", "model": None, "num_images": 1, "done": 1, "bottleneck": None}
    progress |= {"statuses": {"ok": 1}, "labels": {}, "decisions": {}}
    queued = {"id": "first", "status": "queued", "endpoint": "boards", "deployment": "main", "model": "m"}
    queued |= {"options": {}, "input": {"uri": "az://images/line-4"}, "priority": 0, "attempt": 1, "max_attempts": 3}
    queued |= {
        "driver": "d",
        "cluster": None,
        "notified": False,
        "error": None,
        "bottleneck": None,
        "created_at": "2026-01-01T00:00:00Z",
    }
    queued |= {"started_at": None, "ended_at": None}

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.url.scheme}://{request.url.netloc.decode()}")
        kind = request.url.path.rpartition("/")[2]
        page = {"outcomes": [outcome("first", 1).model_dump(mode="json")], "cursor": None}
        return httpx.Response(200, json={"results": page, "progress": progress}.get(kind, queued))

    for module in (batch_jobs, remote):
        monkeypatch.setattr(module, "connect", lambda url: Client(url, transport=httpx.MockTransport(answer)))
    return asked


def test_results_come_from_the_server_that_the_environment_names(
    stored: list[Outcome], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(json.loads(call("--json").stdout)["outcomes"]) > 1
    assert asked == []
    monkeypatch.setenv("GLINT_URL", SERVER)
    assert [one["uri"] for one in json.loads(call("--json").stdout)["outcomes"]] == [outcome("first", 1).uri]
    assert set(asked) == {SERVER}


@pytest.mark.parametrize("arguments", [["status"], ["submit", "boards", "--input", "az://a/b"], ["results", "first"]])
def test_a_server_that_does_not_answer_is_told_in_a_line(arguments: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = CliRunner().invoke(batch.app, [*arguments, "--url", url])
    assert isinstance(done.exception, GlintError)
    assert str(done.exception).startswith(f"--url {url}: nothing answers")
    assert str(done.exception).endswith("is `glint serve` running there?")


@pytest.mark.parametrize(
    ("verb", "arguments", "following"),
    [
        (batch_jobs.submit, ["boards", "--input", "az://images/line-4"], "batch watch first"),
        (batch_jobs.retry, ["first"], "batch watch first"),
        (batch_jobs.watch, ["first"], "batch results first"),
    ],
)
def test_the_next_step_asks_the_same_server(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, verb: Callable, arguments: list[str], following: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command()(verb)
    done = CliRunner().invoke(app, [*arguments, "--url", SERVER])
    assert done.exit_code == 0, done.output
    assert done.output.rstrip().endswith(f"{following} --url {SERVER}")
