"""Images that hang or kill the process that scores them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pipelines.fragile import DEADLY, ENDLESS, Fragile, Jealous, Patient, Stuck, Unwritten
from tests.pipelines.progress import Told

from glint.adapters.images import Images
from glint.adapters.sqlite_store import SqliteStore
from glint.core.errors import GlintError, ImageError
from glint.core.job import CHUNK_ROWS, Chunk
from glint.core.job_options import JobOptions
from glint.core.outcome import Outcome
from glint.core.policy import Policy
from glint.core.stores import Bridge
from glint.pipelines.batch import freeze_input
from glint.pipelines.batch_run import BatchRun
from glint.pipelines.chunk_answers import Decoded, Written
from glint.pipelines.chunk_writer import ChunkWriter
from glint.pipelines.infer_actor import InferActor
from glint.pipelines.scoring import Scored
from glint.pipelines.scoring_process import ScoringProcess
from glint.settings import Settings
from glint.vision.bundle import Bundle
from glint.vision.predictor import Predictor
from glint.wiring import Pin, open_pinned

NUM_GOOD = CHUNK_ROWS + 20


def picture(path: Path, level: int) -> None:
    Image.new("RGB", (64, 64), (level, level, level)).save(path)


@pytest.fixture
def run(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchRun:
    """A job of two chunks of good pictures, by a fragile model."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])  # where its process finds tests.pipelines.fragile
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(NUM_GOOD):
        picture(folder / f"{number:03}.png", 20 + number)
    predictor = Predictor(bundle)
    return BatchRun(
        model_uri="bundle",
        model=predictor.model,
        open_predictor=partial(Fragile, bundle),
        input=str(folder),
        manifest=freeze_input(str(folder), Images(), tmp_path, Told()),
        images=Images(),
        store=SqliteStore(tmp_path / "results.db"),
        home=tmp_path,
        job="fragile",
    )


def spoilt(run: BatchRun, bad: dict[str, int]) -> BatchRun:
    """The job with some of its pictures painted over."""
    for name, level in bad.items():
        picture(Path(run.input) / name, level)
    return replace(run, manifest=freeze_input(run.input, Images(), run.home, Told()))


def outcomes(run: BatchRun, written: list[Written] | None = None) -> dict[str, Outcome]:
    """By file name, when both chunks are scored side by side; what was answered is added to `written`."""
    bridge = Bridge()
    with closing(ScoringProcess(run)) as process, ThreadPoolExecutor(2) as callers:
        answers = [one for one in callers.map(process.score, range(2)) if isinstance(one, Written)]
    assert [Chunk.model_validate_json(one.document).chunk for one in answers] == [0, 1]
    if written is not None:
        written += answers
    found = bridge.run(run.store.page(run.id, limit=1000)).outcomes
    bridge.run(run.store.close())
    bridge.close()
    assert len(found) == NUM_GOOD
    return {Path(outcome.uri).name: outcome for outcome in found}


def test_an_image_that_kills_its_process_fails_alone(run: BatchRun) -> None:
    written: list[Written] = []
    found = outcomes(spoilt(run, {"105.png": DEADLY}), written)
    assert sum(one.down_s for one in written) > 0
    assert [name for name, outcome in found.items() if outcome.status != "ok"] == ["105.png"]
    died = found["105.png"]
    assert died.status == "failed"
    assert died.error is not None
    assert died.error.type == "process_died"
    assert "SIGSEGV" in died.error.message


def test_outcomes_name_the_engine_that_made_them(run: BatchRun) -> None:
    thought = run.model.model_copy(update={"engine": "openvino-int8"})
    assert {outcome.model for outcome in outcomes(replace(run, model=thought)).values()} == {run.model}


def test_a_chunk_and_its_outcomes_live_as_long_as_the_job_says(run: BatchRun, bundle: Bundle) -> None:
    brief, bridge = replace(run, options=JobOptions(ttl_days=2)), Bridge()
    gone = ImageError("missing", "missing", "it is gone")
    scored = {place: Scored(error=gone) for place in range(CHUNK_ROWS)}
    ChunkWriter(brief, Predictor(bundle)).write(0, brief.chunk_rows(0), scored, seconds=1.0)
    (chunk,) = bridge.collect(run.store.chunks(run.id))
    assert (chunk.ttl_s, chunk.statuses) == (2 * 24 * 3600, {"missing": CHUNK_ROWS})
    bridge.run(run.store.close())
    bridge.close()


def test_neither_an_actor_nor_its_process_holds_what_it_does_not_use(run: BatchRun) -> None:
    """Each loads hundreds of megabytes that every node would have to spare."""
    code = """
import pickle, sys
run = pickle.load(sys.stdin.buffer)
import glint.pipelines.chunk_actors, glint.wiring
before = {"torch", "openvino", "mlflow", "sklearn", "scipy"} & set(sys.modules)
import glint.pipelines.scoring_worker
after = {"mlflow", "sklearn", "scipy", "timm"} & set(sys.modules)
sys.exit(f"{before} {after}" if before or after else 0)
"""
    # The run of a job as the command line makes it, whose model is opened by the process alone.
    opens = partial(open_pinned, Pin("models:/boards/1", Path(), Policy()), (None, None), Settings(), "auto")
    light = pickle.dumps(replace(run, open_predictor=opens))
    done = subprocess.run([sys.executable, "-c", code], input=light, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("apart", [False, True])
def test_a_node_that_does_not_share_the_home_says_so(run: BatchRun, apart: bool) -> None:
    elsewhere = replace(run, manifest=replace(run.manifest, path=Path("/of/another/node/manifest.parquet")))
    said = "GLINT_HOME must be a folder that all nodes share: the job's input /of/another/node/manifest.parquet is not"
    with closing(ScoringProcess(elsewhere, apart)) as process, pytest.raises(GlintError, match=said):
        process.score(0)


@pytest.mark.slow
def test_decoding_apart_makes_the_same_outcomes_and_bears_the_same_images(run: BatchRun, bundle: Bundle) -> None:
    apart, bridge = spoilt(run, {"105.png": DEADLY}), Bridge()
    with closing(ScoringProcess(apart, apart=True)) as process, ThreadPoolExecutor(2) as callers:
        decoded = list(callers.map(process.score, range(2)))
    inferring = InferActor(apart)
    for chunk in decoded:
        assert isinstance(chunk, Decoded)
        inferring.score(chunk)
    found = {Path(one.uri).name: one for one in bridge.run(apart.store.page(apart.id, limit=1000)).outcomes}
    bridge.run(apart.store.close())
    bridge.close()
    assert len(found) == NUM_GOOD
    died = found.pop("105.png")
    assert died.error is not None
    assert (died.status, died.error.type) == ("failed", "process_died")
    alone = Predictor(bundle)
    for outcome in found.values():
        prepared = alone.prepare(Path(outcome.uri.removeprefix("file://")).read_bytes())
        expected = alone.interpret(alone.score(prepared.pixels[None])[0])
        assert (outcome.status, outcome.labels, outcome.width) == ("ok", expected.labels, prepared.width)
        assert outcome.confidence == pytest.approx(expected.confidence, abs=1e-5)


def test_an_actor_whose_engine_hangs_ends_itself(run: BatchRun, bundle: Bundle) -> None:
    code = """
import pickle, sys
run, decoded = pickle.load(sys.stdin.buffer)
from glint.pipelines.infer_actor import InferActor
InferActor(run).score(decoded)
"""
    options = JobOptions(decode="apart", mini_batch_timeout_s=1)
    stuck = replace(run, open_predictor=partial(Stuck, bundle), options=options)
    image = {"error": None, "timings_ms": None, "width": 64, "height": 64}
    given = pickle.dumps((stuck, Decoded(0, [image], 0.1, np.zeros((1, 3, 64, 64), np.uint8))))
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=given, stderr=subprocess.PIPE, env=path, timeout=60, check=False)
    assert done.returncode == 1
    assert b"the engine took longer than mini_batch_timeout_s 1 for mini-batch 0; its actor ends" in done.stderr


@pytest.mark.slow
def test_images_that_hang_are_timed_out_and_others_are_unaffected(run: BatchRun) -> None:
    bad = {"040.png": DEADLY, "041.png": ENDLESS, "105.png": ENDLESS}
    found = outcomes(replace(spoilt(run, bad), options=JobOptions(item_timeout_s=2)))
    statuses = {name: outcome.status for name, outcome in found.items() if outcome.status != "ok"}
    assert statuses == {"040.png": "failed", "041.png": "timed_out", "105.png": "timed_out"}
    hung = found["041.png"].error
    assert hung is not None
    assert hung.message == "took longer than item_timeout_s 2, also alone"


@pytest.mark.slow
def test_a_mini_batch_has_an_end_whatever_its_images_do(run: BatchRun) -> None:
    options = JobOptions(mini_batch_timeout_s=5, item_timeout_s=1000)
    found = outcomes(replace(spoilt(run, {"040.png": ENDLESS}), options=options))
    assert [name for name, outcome in found.items() if outcome.status != "ok"] == ["040.png"]
    hung = found["040.png"]
    assert hung.status == "timed_out"
    assert hung.error is not None
    assert hung.error.message == "took longer than mini_batch_timeout_s 5, also alone"


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "limit_s"), [(Jealous, 120), (Patient, 2)])
def test_images_that_only_die_or_hang_beside_each_other_all_end_ok(
    run: BatchRun, bundle: Bundle, engine: type[Jealous], limit_s: float
) -> None:
    options, wide = JobOptions(item_timeout_s=limit_s, concurrency=2), Images(read_threads=80)  # a few deaths do
    found = outcomes(replace(run, open_predictor=partial(engine, bundle), options=options, images=wide))
    assert {outcome.status for outcome in found.values()} == {"ok"}


@pytest.mark.slow
def test_a_process_that_dies_with_no_image_in_flight_ends_the_job_with_its_reason(
    run: BatchRun, bundle: Bundle
) -> None:
    deadly, reason = replace(run, open_predictor=partial(Unwritten, bundle)), "SIGSEGV, 3 times over mini-batch 1 with"
    with closing(ScoringProcess(deadly)) as process, pytest.raises(RuntimeError, match=reason):
        process.score(1)


def test_a_model_that_is_another_by_now_is_no_death(run: BatchRun) -> None:
    other = replace(run, model=run.model.model_copy(update={"policy": "0" * 16}))
    with closing(ScoringProcess(other)) as process, pytest.raises(GlintError, match="has become another bundle or"):
        process.score(0)
