"""One image gives the same probabilities wherever glint scores it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

import glint
from glint.core.manifest import Manifest
from glint.core.outcome import Outcome
from glint.core.stores import Bridge
from glint.pipelines.batch import run_batch
from glint.pipelines.batch_run import BatchRun
from glint.pipelines.evaluate import score_split
from glint.pipelines.targets import labelled_table
from glint.pipelines.training_run import Trained
from glint.serving.online import start_online, stop_online
from glint.settings import Settings
from glint.wiring import open_images, open_predictor, serving_sources
from tests.pipelines.progress import Told

TOLERANCE = 1e-5
"""Largest difference of a probability: float32 sums in another order, for batches of another size."""


@pytest.fixture(scope="module")
def server(
    trained: Trained, settings: Settings, serve_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    sources = serving_sources([trained.model_uri], settings)
    yield start_online(sources, port=serve_port, logs=tmp_path_factory.mktemp("logs"))
    stop_online()


@pytest.fixture(scope="module")
def outcomes(batch: BatchRun, manifest: Manifest) -> dict[str, Outcome]:
    run = replace(batch, options=batch.options.model_copy(update={"top_k": len(manifest.classes)}))
    job = run_batch(run, Told()).job
    bridge = Bridge()
    page = bridge.run(run.store.page(job, limit=1000))
    bridge.run(run.store.close())
    bridge.close()
    return {outcome.uri: outcome for outcome in page.outcomes}


def test_evaluation_batch_online_and_notebook_agree(
    trained: Trained, manifest: Manifest, settings: Settings, server: str, outcomes: dict[str, Outcome]
) -> None:
    opening = partial(open_predictor, trained.model_uri, settings)
    evaluated = score_split(labelled_table(manifest, "test").slice(0, 5), opening, open_images(settings), Told())
    for uri, expected in zip(evaluated.uris, evaluated.probabilities, strict=True):
        data = open_images(settings).read(uri)
        answer = httpx.post(f"{server}/v1/classify", params={"top_k": 7}, content=data).raise_for_status().json()
        online = {score["label"]: score["confidence"] for score in answer["top_k"]}
        batch = {score.label: score.confidence for score in outcomes[uri].top_k}
        notebook = {score.label: score.confidence for score in opening().predict([data], top_k=7)[0].top_k}
        for found in (online, batch, notebook):
            assert np.abs(np.array([found[name] for name in manifest.classes]) - expected).max() < TOLERANCE


def test_load_predicts_from_paths_without_ray(trained: Trained, boards: Path) -> None:
    predictions = glint.load(trained.bundle).predict(
        [boards / "open" / "absent.jpg", *sorted((boards / "open").iterdir())[:2]]
    )
    assert predictions[0].status == "missing"
    assert {prediction.status for prediction in predictions[1:]} <= {"ok", "undecodable"}
