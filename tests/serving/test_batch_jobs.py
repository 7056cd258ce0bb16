"""The batch API in front of a real store; drivers are played by the test."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.serving.drivers import PlayedDrivers
from tests.stores.store_documents import chunk_of, job

import glint
from glint.adapters.sqlite_store import SqliteStore
from glint.client import RefusedError
from glint.core.allowed import Allowed
from glint.core.books import Books
from glint.core.errors import ConflictError, GlintError
from glint.core.stores import Bridge, Document
from glint.pipelines.bottleneck import Work
from glint.pipelines.chunk_answers import Written
from glint.serving.batch_answers import PREFIX
from glint.serving.batch_desk import Desk
from glint.serving.batch_jobs import create_batch_app
from glint.serving.guard import Access, Guard

MODEL = "models:/boards/3"


def check_model(model: str) -> None:
    if model == "models:/boards@absent":
        raise GlintError("model 'boards' has no alias 'absent'")


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "results.db")


@pytest.fixture
def drivers() -> PlayedDrivers:
    return PlayedDrivers()


@pytest.fixture
def whole(store: SqliteStore, drivers: PlayedDrivers, tmp_path: Path) -> FastAPI:
    allowed = Allowed((str(tmp_path), "az://images/line-4"), ("models:/", "/srv/bundles"), ("hooks.example.com",))
    whole = FastAPI()
    whole.mount(PREFIX, create_batch_app(Desk(store, drivers, allowed, check_model, tmp_path)))
    return whole


@pytest.fixture
def client(whole: FastAPI) -> Iterator[httpx.Client]:
    with TestClient(whole, base_url=f"http://glint{PREFIX}") as client:
        yield client


@pytest.fixture
def endpoint(client: httpx.Client) -> str:
    made = client.post("endpoints", json={"name": "boards", "deployments": {"main": {"model": MODEL}}})
    assert made.status_code == 201, made.text
    return "boards"


def submitted(client: httpx.Client, **asked: object) -> str:
    answer = client.post("endpoints/boards/jobs", json={"input": {"uri": "az://images/line-4"}} | asked)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"{PREFIX}/jobs/{answer.json()['id']}"
    return answer.json()["id"]


def ended(client: httpx.Client, store: SqliteStore, num_chunks: int = 3) -> str:
    """A job that was cancelled after some chunks were written."""
    id, bridge = submitted(client), Bridge()
    bridge.run(store.put_job(job(id, num_images=500)))
    for number in range(num_chunks):
        bridge.run(store.put_chunk(*chunk_of(id, number, 50)))
    bridge.run(store.close())
    bridge.close()
    assert client.post(f"jobs/{id}/cancel").json()["status"] == "cancelled"
    return id


def assert_refused(answer: httpx.Response, status: int, said: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


# Endpoints


def test_deployments_come_and_go_and_the_default_can_be_switched(client: httpx.Client, endpoint: str) -> None:
    other = client.put("endpoints/boards/deployments/candidate", json={"model": "models:/boards/4"}).json()
    assert (other["default"], set(other["deployments"])) == ("main", {"main", "candidate"})
    assert_refused(client.delete("endpoints/boards/deployments/main"), 422, "is the default of endpoint 'boards'")
    assert client.put("endpoints/boards/default", json={"deployment": "candidate"}).json()["default"] == "candidate"
    assert list(client.delete("endpoints/boards/deployments/main").json()["deployments"]) == ["candidate"]
    assert [one["name"] for one in client.get("endpoints").json()["endpoints"]] == ["boards"]
    assert client.delete("endpoints/boards").status_code == 204
    assert_refused(client.get("endpoints/boards"), 404, "there is no endpoint 'boards'; there are none yet")


def test_an_endpoint_is_made_once(client: httpx.Client, endpoint: str) -> None:
    before = client.get("endpoints/boards").json()
    assert_refused(client.post("endpoints", json={"name": "boards"}), 409, "there is an endpoint 'boards' already")
    assert client.get("endpoints/boards").json() == before


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"name": "../x"}, "name '../x' must be"),
        ({"name": "x", "deployments": {"a": {"model": "/tmp/bundle"}}}, "is not within what GLINT_BATCH_MODELS allows"),
        ({"name": "x", "deployments": {"a": {"model": "/srv/bundles/../secret"}}}, "GLINT_BATCH_MODELS allows"),
        ({"name": "x", "deployments": {"a": {"model": "/srv/bundles-2/x"}}}, "GLINT_BATCH_MODELS allows"),
        ({"name": "x", "deployments": {"a": {"model": "bundle"}}}, "must be an absolute path"),
        ({"name": "x", "deployments": {"a": {"model": MODEL, "options": {"topk": 3}}}}, "options.topk is no option"),
        ({"name": "x", "deployments": {"a": {"model": "models:/boards@absent"}}}, "has no alias 'absent'"),
        ({"name": "x", "default": "main"}, "has no deployment 'main'; its deployments are none yet"),
    ],
)
def test_an_endpoint_that_could_not_work_is_refused(client: httpx.Client, made: dict, said: str) -> None:
    assert_refused(client.post("endpoints", json=made), 422, said)
    assert client.get("endpoints").json() == {"endpoints": []}


# Submitting


def test_a_job_takes_the_default_deployment_and_its_options(client: httpx.Client, endpoint: str) -> None:
    asked = {"model": "models:/boards/4", "options": {"top_k": 2}}
    client.put("endpoints/boards/deployments/candidate", json=asked)
    client.put("endpoints/boards/default", json={"deployment": "candidate"})
    found = client.get(f"jobs/{submitted(client)}").json()
    assert (found["status"], found["deployment"], found["model"]) == ("queued", "candidate", "models:/boards/4")
    assert found["options"] == {"top_k": 2}
    assert client.get(f"jobs/{submitted(client, options={'top_k': 1})}").json()["options"] == {"top_k": 1}
    assert client.get(f"jobs/{submitted(client, deployment='main')}").json()["model"] == MODEL


def test_the_same_key_makes_the_same_job_and_no_other(client: httpx.Client, endpoint: str) -> None:
    key, asked = {"idempotency-key": "night 12"}, {"input": {"uri": "az://images/line-4"}}
    first, again = (client.post("endpoints/boards/jobs", json=asked, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    other = client.post("endpoints/boards/jobs", json=asked | {"priority": 1}, headers=key)
    assert_refused(other, 409, "Idempotency-Key 'night 12' was used for another request")
    assert len(client.get("jobs").json()["jobs"]) == 1
    client.delete("endpoints/boards")
    later = client.post("endpoints/boards/jobs", json=asked, headers=key)
    assert (later.status_code, later.json()["id"]) == (202, first.json()["id"])
    assert_refused(
        client.post("endpoints/boards/jobs", json=asked, headers={"idempotency-key": ""}), 422, "idempotency-key"
    )


@pytest.mark.parametrize(
    ("input", "said"),
    [
        ({"uri": "az://images/line-44"}, "GLINT_BATCH_INPUTS allows"),
        ({"uri": "az://images/line-4/../secret"}, "must not have . or .."),
        ({"uri": "file:///etc"}, "GLINT_BATCH_INPUTS allows"),
        ({"uri": "s3://images/line-4"}, "must be az://"),
        ({"uri": "images"}, "must be an absolute path"),
        ({"uri": "/a\0b"}, "must not have a zero character"),
        ({"uri": "file:///a%00b"}, "must not have a zero character"),
        ({"uris": ["az://images/line-4/a\0.jpg"]}, "must not have a zero character"),
        ({"uris": ["az://images/line-4/a.jpg", "/etc/passwd"]}, "'/etc/passwd' is not within"),
        ({"uris": []}, "name either uri or uris"),
        ({"uri": "az://images/line-4", "uris": ["az://images/line-4/a.jpg"]}, "name either uri or uris"),
    ],
)
def test_an_input_that_is_not_allowed_is_refused(client: httpx.Client, endpoint: str, input: dict, said: str) -> None:
    assert_refused(client.post("endpoints/boards/jobs", json={"input": input}), 422, said)


def test_a_link_does_not_lead_out_of_an_allowed_folder(client: httpx.Client, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "way-out").symlink_to("/etc")
    assert_refused(
        client.post("endpoints/boards/jobs", json={"input": {"uri": f"{tmp_path}/way-out"}}), 422, "GLINT_BATCH_INPUTS"
    )
    (tmp_path / "pictures").mkdir()
    submitted(client, input={"uri": f"file://{tmp_path}/pictures"})


def test_an_input_that_is_not_there_or_names_no_images_is_refused_at_once(
    client: httpx.Client, endpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").touch()
    for name, said in (("nowhere", "does not exist on the server"), ("a.jpg", "ends in .parquet, .csv, .jsonl")):
        asked = {"input": {"uri": f"{tmp_path}/{name}"}}
        assert_refused(client.post("endpoints/boards/jobs", json=asked), 422, said)


@pytest.mark.parametrize("number", ["1e400", "NaN"])
def test_numbers_that_no_job_could_have_are_refused(client: httpx.Client, endpoint: str, number: str) -> None:
    body = f'{{"input": {{"uri": "az://images/line-4"}}, "options": {{"item_timeout_s": {number}}}}}'
    answer = client.post("endpoints/boards/jobs", content=body, headers={"content-type": "application/json"})
    assert_refused(answer, 422, "options.item_timeout_s must be a finite number")


def test_a_damaged_cursor_is_not_the_last_page(client: httpx.Client, endpoint: str, store: SqliteStore) -> None:
    id = ended(client, store)
    for path in ("jobs", f"jobs/{id}/results"):
        assert_refused(client.get(path, params={"cursor": "zz"}), 422, "cursor")


def test_only_allowed_webhooks_over_tls_are_taken(client: httpx.Client, endpoint: str) -> None:
    asked = {"input": {"uri": "az://images/line-4"}}
    for url, said in (
        ("https://elsewhere.example.com/x", "GLINT_WEBHOOK_HOSTS allows: hooks.example.com"),
        ("http://hooks.example.com/x", "must begin with https://"),
        ("https://hooks.example.com:abc/x", "is no address"),
        ("https://hooks.example.com:99999/x", "is no address"),
        ("https://hooks.example.com/x\r\ny", "is no address: it has a blank or a control character"),
        ("https://hooks.exam\tple.com/x", "is no address: it has a blank or a control character"),
        ("https://[x", "is no address"),
    ):
        assert_refused(client.post("endpoints/boards/jobs", json=asked | {"webhook": url}), 422, said)
    submitted(client, webhook="https://hooks.example.com/x")


def test_jobs_are_listed_in_pages_newest_first(client: httpx.Client, endpoint: str) -> None:
    client.post("endpoints", json={"name": "fields", "deployments": {"main": {"model": MODEL}}})
    ids = [submitted(client) for _ in range(5)]
    client.post("endpoints/fields/jobs", json={"input": {"uri": "az://images/line-4"}})
    found, params = [], {"endpoint": "boards", "limit": 2}
    while True:
        page = client.get("jobs", params=params).json()
        found += [one["id"] for one in page["jobs"]]
        if page["cursor"] is None:
            break
        params["cursor"] = page["cursor"]
    assert found == ids[::-1]
    assert len(client.get("jobs").json()["jobs"]) == 6


# What becomes of jobs


def test_cancelling_stops_the_driver_and_leaves_what_was_done(
    client: httpx.Client, endpoint: str, store: SqliteStore, drivers: PlayedDrivers
) -> None:
    id = ended(client, store)
    assert drivers.stopped == [client.get(f"jobs/{id}").json()["driver"]]
    progress = client.get(f"jobs/{id}/progress").json()
    assert (progress["status"], progress["done"], progress["num_images"]) == ("cancelled", 150, 500)
    assert len(client.get(f"jobs/{id}/results", params={"limit": 1000}).json()["outcomes"]) == 150


def test_a_job_is_cancelled_also_where_nobody_can_tell_its_driver(
    client: httpx.Client, endpoint: str, drivers: PlayedDrivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str) -> None:
        raise ConnectionError("no Ray there")

    id = submitted(client)
    monkeypatch.setattr(drivers, "stop", unreachable)
    answer = client.post(f"jobs/{id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


def test_a_job_says_at_its_end_what_held_it_up(client: httpx.Client, endpoint: str, store: SqliteStore) -> None:
    id, bridge = ended(client, store), Bridge()
    assert client.get(f"jobs/{id}").json()["bottleneck"] is None
    work = Work()
    work.begin([("node", {"read": 1, "decode": 1, "infer": 1, "write": 1, "cores": 1})])
    work.add(chunk_of(id, 0, 50)[0], Written("", 0.1))
    spent = work.bottleneck(node_price=0.5)
    bridge.run(store.put_job(job(id, bottleneck=spent)))
    for path in ("", "/progress"):
        told = client.get(f"jobs/{id}{path}").json()["bottleneck"]
        assert spent is not None
        assert (told["line"], told["node_price"], told["cost_per_million"]) == (spent.line, 0.5, spent.cost_per_million)
    assert client.post(f"jobs/{id}/cancel").json()["bottleneck"] == told
    bridge.run(store.close())
    bridge.close()


def test_results_come_in_pages_by_filter_and_as_files(client: httpx.Client, endpoint: str, store: SqliteStore) -> None:
    id = ended(client, store)
    whole = client.get(f"jobs/{id}/results", params={"limit": 1000, "status": "ok"}).json()["outcomes"]
    first = client.get(f"jobs/{id}/results", params={"limit": 10, "status": "ok"}).json()
    second = client.get(f"jobs/{id}/results", params={"limit": 10, "status": "ok", "cursor": first["cursor"]}).json()
    assert first["outcomes"] + second["outcomes"] == whole[:20]
    lines = client.get(f"jobs/{id}/results", params={"format": "csv", "status": "ok"}).text.splitlines()
    assert len(lines) == len(whole) + 1
    assert lines[0].startswith("uri,etag,status,label,confidence,top_k")
    file = client.get(f"jobs/{id}/results", params={"format": "parquet", "status": "ok"})
    table = pq.read_table(io.BytesIO(file.content))
    assert table["uri"].to_pylist() == [one["uri"] for one in whole]
    assert table["confidence"].to_pylist() == [one["confidence"] for one in whole]
    assert_refused(client.get(f"jobs/{id}/results", params={"status": "okay"}), 422, "status 'okay' must be one of ok")
    page = {"format": "csv", "cursor": first["cursor"]}
    assert_refused(client.get(f"jobs/{id}/results", params=page), 422, "cursor goes with format=json")
    nothing = {"status": "timed_out", "format": "csv"}
    assert client.get(f"jobs/{id}/results", params=nothing).text.startswith("uri,etag,status,label,confidence,top_k")
    nothing = {"status": "timed_out", "format": "parquet"}
    assert pq.read_table(io.BytesIO(client.get(f"jobs/{id}/results", params=nothing).content)).num_rows == 0


def test_errors_are_grouped_by_reason(client: httpx.Client, endpoint: str, store: SqliteStore) -> None:
    id = ended(client, store)
    found = client.get(f"jobs/{id}/errors").json()
    assert [(one["status"], one["reason"], one["count"]) for one in found["groups"]] == [("missing", "not_found", 22)]
    assert found["groups"][0]["message"] == "no such blob"
    assert (len(found["groups"][0]["examples"]), found["counted"], found["complete"]) == (3, 22, True)


@pytest.mark.parametrize(("what", "left"), [("missing", [0, 1]), ("failed", [1]), ("all", [])])
def test_a_retry_leaves_only_the_chunks_that_are_not_scored_again(
    client: httpx.Client, endpoint: str, store: SqliteStore, what: str, left: list[int]
) -> None:
    id, bridge = ended(client, store, num_chunks=0), Bridge()
    bridge.run(store.put_chunk(*chunk_of(id, 0, 7)))
    bridge.run(store.put_chunk(*chunk_of(id, 1, 6, status="ok", error=None, labels=("good",), confidence=0.5)))
    again = client.post(f"jobs/{id}/retry", json={"what": what, "options": {"max_retries": 2}})
    assert (again.status_code, again.json()["status"], again.json()["attempt"]) == (202, "queued", 2)
    assert again.json()["options"] == {"max_retries": 2}
    assert [chunk.chunk for chunk in bridge.collect(store.chunks(id))] == left
    bridge.close()


def test_a_retry_that_somebody_overtakes_forgets_nothing(
    client: httpx.Client, endpoint: str, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(document: Document, etag: str | None = None) -> str:
        raise ConflictError("somebody was quicker")

    id, bridge = ended(client, store), Bridge()
    monkeypatch.setattr(store, "put_document", overtaken)
    assert client.post(f"jobs/{id}/retry", json={"what": "all"}).status_code == 409
    assert len(bridge.collect(store.chunks(id))) == 3
    bridge.run(store.close())
    bridge.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mini_batch_size": 50}, "stays 99"),
        ({"top_k": 2}, "stays 5"),
        ({"engine": "torch"}, "stays auto"),
        ({"error_threshold": "many"}, "options.error_threshold must be a count"),
        ({"speed": 3}, "options.speed is no option of a job; there are mini_batch_size"),
    ],
)
def test_a_retry_with_impossible_options_is_refused(
    client: httpx.Client, endpoint: str, store: SqliteStore, options: dict, said: str
) -> None:
    id = ended(client, store)
    answer = client.post(f"jobs/{id}/retry", json={"options": options})
    assert answer.status_code in (400, 422), answer.text
    assert said in answer.json()["detail"]
    assert client.get(f"jobs/{id}").json()["status"] == "cancelled"


def test_a_retry_without_a_body_scores_what_is_missing(client: httpx.Client, endpoint: str, store: SqliteStore) -> None:
    id = ended(client, store)
    assert client.post(f"jobs/{id}/retry").json()["status"] == "queued"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{bad", "the body is not JSON: Expecting property name enclosed in double quotes"),
        ("", "the body: field required"),
        ('{"input": {"uris": []}}', "input: name either uri or uris"),
    ],
)
def test_a_body_that_is_none_is_told_as_such(client: httpx.Client, endpoint: str, body: str, said: str) -> None:
    answer = client.post("endpoints/boards/jobs", content=body, headers={"content-type": "application/json"})
    assert_refused(answer, 422, said)
    assert answer.json()["reason"] == "invalid_body"


def test_a_body_that_is_not_said_to_be_json_is_told_as_such(client: httpx.Client, endpoint: str) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}  # as curl says of what it sends with -d
    answer = client.post("endpoints/boards/jobs", content='{"input": {"uris": ["a"]}}', headers=form)
    assert_refused(answer, 422, f"the body must be content-type: application/json, got {form['content-type']}")


def test_a_body_of_too_many_bytes_is_refused_while_it_comes(whole: FastAPI, endpoint: str) -> None:
    sent = 0

    async def without_end() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 5000:
            sent += 300
            yield b"x" * 300

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(Guard(whole, Access(), "batch", max_bytes=1000))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://glint{PREFIX}") as client:
            kind = {"content-type": "application/json"}
            refused = await client.post("endpoints/boards/jobs", content=without_end(), headers=kind)
            return refused, await client.post("endpoints/boards/jobs", json={"input": {"uri": "az://images/line-4"}})

    refused, taken = asyncio.run(ask())
    assert_refused(refused, 413, "a body may have at most 1,000 bytes, got at least 1,200")
    assert (sent, taken.status_code) == (1200, 202)


def test_a_parameter_that_is_misspelt_does_not_find_everything(
    client: httpx.Client, endpoint: str, store: SqliteStore
) -> None:
    id = ended(client, store)
    answer = client.get(f"jobs/{id}/results", params={"statuses": "failed"})
    assert_refused(
        answer, 422, f"statuses is no parameter of {PREFIX}/jobs/{id}/results; there are status, label, decision"
    )
    assert client.get(f"jobs/{id}/results", params={"status": "failed"}).status_code == 200
    assert_refused(client.get(f"jobs/{id}", params={"verbose": "1"}), 422, "there are none")


def test_a_wrong_path_is_pointed_to_the_description_of_this_api(client: httpx.Client) -> None:
    assert_refused(client.get("nothing"), 404, f"there is nothing at {PREFIX}/nothing; see {PREFIX}/openapi.json")
    assert client.get("openapi.json").status_code == 200


def test_a_job_that_runs_is_neither_deleted_nor_retried(client: httpx.Client, endpoint: str) -> None:
    id = submitted(client)
    assert_refused(client.delete(f"jobs/{id}"), 409, f"job {id} is queued; cancel it first")
    assert_refused(client.post(f"jobs/{id}/retry", json={}), 409, "cancel it first")


def test_a_job_is_not_deleted_before_its_driver_has_ended(
    client: httpx.Client, endpoint: str, store: SqliteStore, drivers: PlayedDrivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glint.serving.batch_desk.DRIVER_ENDS_S", 0.0)
    id = ended(client, store)
    driver = client.get(f"jobs/{id}").json()["driver"]
    drivers.statuses[driver] = "running"
    assert_refused(client.delete(f"jobs/{id}"), 409, f"the driver of job {id} has not ended yet")
    drivers.statuses[driver] = "stopped"
    assert client.delete(f"jobs/{id}").status_code == 204


def test_a_job_is_not_deleted_while_another_ray_has_its_driver(
    client: httpx.Client, endpoint: str, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glint.serving.batch_desk.DRIVER_ENDS_S", 0.0)
    id, bridge = ended(client, store), Bridge()
    bridge.run(Books(store).change(id, lambda one: one.held("10.0.0.2:6379")))
    assert_refused(client.delete(f"jobs/{id}"), 409, f"the driver of job {id} has not ended yet")
    bridge.run(Books(store).change(id, lambda one: one.model_copy(update={"started_at": one.created_at})))
    assert client.get(f"jobs/{id}/logs").json()["text"].endswith("is with the Ray at 10.0.0.2:6379.\n")
    bridge.run(Books(store).change(id, lambda one: one.released()))
    assert client.delete(f"jobs/{id}").status_code == 204
    bridge.run(store.close())
    bridge.close()


def test_deleting_a_job_that_has_just_ended_waits_for_its_driver(
    client: httpx.Client, endpoint: str, store: SqliteStore, drivers: PlayedDrivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = iter(("running", "running", "succeeded"))
    monkeypatch.setattr(drivers, "status", lambda name: next(statuses))
    assert client.delete(f"jobs/{ended(client, store)}").status_code == 204
    assert next(statuses, None) is None


def test_a_deleted_job_leaves_nothing(client: httpx.Client, endpoint: str, store: SqliteStore, tmp_path: Path) -> None:
    id, bridge = ended(client, store), Bridge()
    frozen = tmp_path / "jobs" / id / "manifest.parquet"
    frozen.parent.mkdir(parents=True)
    frozen.touch()
    bridge.run(store.put_job(job(id, manifest=str(frozen))))
    assert client.delete(f"jobs/{id}").status_code == 204
    for path in ("", "/progress", "/logs", "/results", "/errors"):
        assert_refused(client.get(f"jobs/{id}{path}"), 404, f"there is no job {id!r}")
    assert list(frozen.parents[1].iterdir()) == []
    assert bridge.run(store.page(id)).outcomes == ()
    bridge.close()


def test_a_deleted_job_that_its_driver_never_came_to_know_leaves_no_files(
    client: httpx.Client, endpoint: str, tmp_path: Path
) -> None:
    id, other = submitted(client), tmp_path / "jobs" / "other"
    for folder in (tmp_path / "jobs" / id, other):
        folder.mkdir(parents=True)
        (folder / "listing.parquet").touch()
    client.post(f"jobs/{id}/cancel")
    assert client.delete(f"jobs/{id}").status_code == 204
    assert list((tmp_path / "jobs").iterdir()) == [other]


def test_a_store_that_cannot_be_used_is_no_fault_of_the_caller(client: httpx.Client, store: SqliteStore) -> None:
    store.path.write_text("no database at all, but quite some text " * 100)
    answer = client.get("jobs", headers={"x-request-id": "line-4"})
    assert_refused(
        answer, 503, "the result store cannot be used at the moment; the server's log has it under request line-4"
    )
    assert (answer.json()["reason"], answer.headers["retry-after"]) == ("store_unavailable", "5")
    assert str(store.path) not in answer.text


def test_logs_are_those_of_the_latest_driver(client: httpx.Client, endpoint: str, drivers: PlayedDrivers) -> None:
    id = submitted(client)
    drivers.printed[client.get(f"jobs/{id}").json()["driver"]] = "opening the model"
    assert client.get(f"jobs/{id}/logs").json() == {"attempt": 1, "text": "opening the model"}


def test_asyncio_callers_have_the_whole_api(whole: FastAPI, store: SqliteStore, tmp_path: Path) -> None:
    async def call() -> None:
        async with glint.AsyncClient("http://glint", transport=httpx.ASGITransport(whole)) as client:
            batch = client.batch
            assert (await batch.create("boards", MODEL)).default == "main"
            assert [one.name for one in await batch.endpoints()] == ["boards"]
            job = await batch.submit("boards", ["az://images/line-4/a.jpg"], priority=3)
            await store.put_chunk(*chunk_of(job.id, 0))
            assert [one.id for one in await batch.jobs("boards")] == [job.id]
            assert (await batch.cancel(job.id)).status == "cancelled"
            assert (await batch.wait(job.id)).done == 5
            assert len([outcome async for outcome in batch.results(job.id, status="ok")]) == 4
            await batch.save_results(job.id, tmp_path / "outcomes.csv", "csv")
            assert len((tmp_path / "outcomes.csv").read_text().splitlines()) == 6
            await batch.delete_job(job.id)
            with pytest.raises(RefusedError, match=f"there is no job {job.id!r}"):
                await batch.job(job.id)

    asyncio.run(call())


def test_openapi_describes_every_operation_and_its_problems(client: httpx.Client) -> None:
    schema = client.get("openapi.json").json()
    operations = [one for path in schema["paths"].values() for one in path.values()]
    assert Counter(bool(one["summary"] and "404" in one["responses"]) for one in operations) == {True: 17}
