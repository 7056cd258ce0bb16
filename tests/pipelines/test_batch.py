from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.pipelines.progress import Told
from tests.stores.store_documents import job as stored_job

from glint.core.errors import GlintError
from glint.core.job import CHUNK_ROWS, Chunk, Totals
from glint.core.job_options import JobOptions
from glint.core.manifest import Manifest
from glint.core.outcome import Outcome
from glint.core.stores import Bridge, ResultStore
from glint.pipelines.batch import freeze_input, judged, run_batch
from glint.pipelines.batch_run import BatchRun
from glint.settings import Settings
from glint.wiring import open_images, open_store


def written(store: ResultStore, job: str) -> tuple[list[Outcome], list[Chunk]]:
    bridge = Bridge()
    try:
        return list(bridge.run(store.page(job, limit=1000)).outcomes), bridge.collect(store.chunks(job))
    finally:
        bridge.run(store.close())
        bridge.close()


def test_every_image_ends_as_exactly_one_outcome(batch: BatchRun, manifest: Manifest) -> None:
    result = run_batch(batch, Told())
    outcomes, chunks = written(batch.store, result.job)
    assert Counter(outcome.uri for outcome in outcomes) == Counter(manifest.table(["uri"])["uri"].to_pylist())
    assert Counter(outcome.status for outcome in outcomes) == result.statuses == {"ok": 278, "undecodable": 2}
    assert [chunk.chunk for chunk in chunks] == list(range(-(-manifest.num_rows // CHUNK_ROWS)))
    assert sum(chunk.num_images for chunk in chunks) == manifest.num_rows
    bad = {outcome.error.type for outcome in outcomes if outcome.error}
    assert bad == {"empty", "truncated"}
    good = next(outcome for outcome in outcomes if outcome.status == "ok")
    assert good.model == batch.model
    assert len(good.top_k) == 3
    assert good.columns["board"].startswith(good.group)
    assert (good.width, good.height) == (64, 64)


def test_run_again_it_does_nothing_and_says_the_same(batch: BatchRun) -> None:
    first = run_batch(batch, Told())
    told = Told()
    again = run_batch(batch, told)
    assert again.scored == 0
    assert (again.statuses, again.labels, again.decisions) == (first.statuses, first.labels, first.decisions)
    assert told.lines == [f"job {again.job}: 280 of 280 images have their outcomes already"]


def test_only_the_chunks_without_a_document_are_scored(batch: BatchRun, tmp_path: Path) -> None:
    whole = run_batch(batch, Told())
    outcomes, chunks = written(batch.store, whole.job)
    part = replace(batch, store=open_store(Settings(store=f"sqlite:///{tmp_path / 'part.db'}")))
    bridge = Bridge()
    uris = batch.manifest.rows(0, CHUNK_ROWS)["uri"].to_pylist()
    bridge.run(part.store.put_chunk(chunks[0], [outcome for outcome in outcomes if outcome.uri in uris]))
    bridge.run(part.store.close())
    bridge.close()
    result = run_batch(part, Told())
    assert (result.scored, result.num_images) == (280 - CHUNK_ROWS, 280)
    assert [outcome.uri for outcome in written(part.store, result.job)[0]] == [outcome.uri for outcome in outcomes]


def test_decoding_apart_from_inferring_ends_the_same(batch: BatchRun) -> None:
    fused = run_batch(batch, Told())
    options = batch.options.model_copy(update={"decode": "apart"})
    apart = run_batch(replace(batch, job="apart", options=options), Told())
    assert apart.scored == 280
    assert (apart.status, apart.statuses, apart.labels) == (fused.status, fused.statuses, fused.labels)
    assert apart.bottleneck is not None
    assert all(apart.bottleneck.seconds[step] > 0 for step in ("read", "decode", "infer", "write"))


def test_folder_is_frozen_as_it_was_listed(batch: BatchRun, boards: Path, settings: Settings) -> None:
    frozen = freeze_input(str(boards), open_images(settings), settings.home_path, Told())
    assert frozen.num_rows == 280
    assert frozen.table(["split"])["split"].null_count == 280
    result = run_batch(replace(batch, manifest=frozen, input=str(boards)), Told())
    assert result.statuses == {"ok": 278, "undecodable": 2}


def test_input_that_is_nothing_is_refused(settings: Settings) -> None:
    with pytest.raises(GlintError, match="--input nowhere is no folder"):
        freeze_input("nowhere", open_images(settings), settings.home_path, Told())


def test_job_of_another_model_is_not_continued(batch: BatchRun) -> None:
    named = replace(batch, job="line-4")
    run_batch(named, Told())
    other = replace(named, model=batch.model.model_copy(update={"bundle": "0" * 32}))
    with pytest.raises(GlintError, match="'line-4' is a job of another model, policy or input"):
        run_batch(other, Told())


@pytest.mark.slow
def test_a_name_that_is_used_again_freezes_its_own_input(
    batch: BatchRun, boards: Path, settings: Settings, tmp_path: Path
) -> None:
    run_batch(replace(batch, job="twice"), Told())
    (tmp_path / "more").mkdir()
    for number, picture in enumerate(sorted((boards / "spur").iterdir())[:3]):
        (tmp_path / "more" / f"{number}.jpg").write_bytes(picture.read_bytes())
    few = freeze_input(str(tmp_path / "more"), open_images(settings), settings.home_path, Told(), "twice")
    elsewhere = open_store(Settings(store=f"sqlite:///{tmp_path / 'elsewhere.db'}"))
    again = run_batch(replace(batch, job="twice", manifest=few, store=elsewhere), Told())
    assert (again.status, again.statuses, again.unstarted) == ("completed", {"ok": 3}, 0)
    assert Manifest.open(batch.home / "jobs" / "twice" / "manifest.parquet").digest == few.digest
    assert run_batch(replace(batch, job="twice"), Told()).statuses == {"ok": 278, "undecodable": 2}


def test_a_job_whose_images_are_not_all_accounted_for_has_not_completed() -> None:
    job = stored_job("a", num_images=10)
    totals = Totals(num_images=8, statuses=Counter(ok=8))
    status, error = judged(JobOptions(), job, totals)
    assert (status, error) == ("failed", "2 of 10 images have no outcome, although nothing is left to score")


def test_the_input_is_frozen_before_the_job_is_known(batch: BatchRun, tmp_path: Path) -> None:
    gone = replace(batch, job="early", manifest=replace(batch.manifest, path=tmp_path / "gone.parquet"))
    with pytest.raises(FileNotFoundError):
        run_batch(gone, Told())
    bridge = Bridge()
    assert bridge.run(batch.store.get_job("early")) is None
    bridge.run(batch.store.close())
    bridge.close()
    assert run_batch(replace(batch, job="early"), Told()).status == "completed"


def test_a_listing_belongs_to_the_job_that_is_named(boards: Path, settings: Settings, tmp_path: Path) -> None:
    images = open_images(settings)
    paths = [freeze_input(str(boards), images, tmp_path, Told(), job).path for job in ("a", "b", None)]
    assert [path.relative_to(tmp_path).parts[:2] for path in paths] == [
        ("jobs", "a"),
        ("jobs", "b"),
        ("inputs", paths[2].name),
    ]
    with pytest.raises(GlintError, match=r"--job '\.\./evil' must be"):
        freeze_input(str(boards), images, tmp_path, Told(), "../evil")


def test_changed_and_missing_files_are_outcomes_of_their_own(
    batch: BatchRun, boards: Path, settings: Settings, tmp_path: Path
) -> None:
    pictures = sorted((boards / "spur").iterdir())[:3]
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.jpg").write_bytes(picture.read_bytes())
    frozen = freeze_input(str(tmp_path), open_images(settings), settings.home_path, Told())
    (tmp_path / "0.jpg").unlink()
    (tmp_path / "1.jpg").write_bytes(pictures[1].read_bytes() + b"\0")
    result = run_batch(replace(batch, manifest=frozen), Told())
    assert result.statuses == {"missing": 1, "changed": 1, "ok": 1}


def test_a_job_cannot_be_named_out_of_its_folder(batch: BatchRun) -> None:
    with pytest.raises(GlintError, match=r"--job '\.\./evil' must be"):
        run_batch(replace(batch, job="../evil"), Told())
    assert not (batch.home / "evil").exists()


def poisoned(folder: Path, settings: Settings, good: int, bad: int) -> Manifest:
    """Frozen pictures, the first of which are no images."""
    for number in range(good + bad):
        Image.new("RGB", (64, 64), (number % 256, 20, 30)).save(folder / f"{number:04}.png")
        if number < bad:
            (folder / f"{number:04}.png").write_bytes(b"no image at all, but as many bytes as one" * 9)
    return freeze_input(str(folder), open_images(settings), settings.home_path, Told())


def test_too_many_errors_fail_the_job_and_a_higher_threshold_completes_it(
    batch: BatchRun, settings: Settings, tmp_path: Path
) -> None:
    strict = JobOptions(error_threshold="1%", parquet=True)
    run = replace(batch, manifest=poisoned(tmp_path, settings, 98, 2), options=strict, job="strict")
    result = run_batch(run, Told())
    assert (result.status, result.unstarted) == ("failed", 0)
    assert result.error == ("2 of 100 images did not end ok (2 undecodable), more than the 1 of error_threshold 1%")
    assert result.parquet is not None
    assert pq.read_table(result.parquet)["status"].to_pylist().count("undecodable") == 2
    result = run_batch(replace(run, options=JobOptions(error_threshold=2)), Told())
    assert (result.status, result.error, result.scored) == ("completed", None, 0)


@pytest.mark.slow
def test_a_hopeless_job_stops_early_and_its_unstarted_images_are_scored_later(
    batch: BatchRun, settings: Settings, tmp_path: Path
) -> None:
    options = JobOptions(error_threshold=0, mini_batch_size=40)
    run = replace(batch, manifest=poisoned(tmp_path, settings, 960, 40), options=options, job="hopeless")
    result = run_batch(run, Told())
    assert result.status == "stopped"
    assert 0 < result.unstarted == 1000 - sum(result.statuses.values())
    assert result.error is not None
    assert result.error.startswith(f"stopped with {result.unstarted} images unstarted: 40 of 1,000 images did not end")
    with pytest.raises(GlintError, match="mini_batch_size 50: job 'hopeless' was begun with 40, which stays"):
        run_batch(replace(run, options=JobOptions(mini_batch_size=50)), Told())
    with pytest.raises(GlintError, match="engine torch: job 'hopeless' was begun with auto, which stays"):
        run_batch(replace(run, options=JobOptions(engine="torch")), Told())
    again = run_batch(replace(run, options=JobOptions(error_threshold="4%")), Told())
    assert (again.status, again.scored) == ("completed", result.unstarted)
    assert again.statuses == {"ok": 960, "undecodable": 40}
    assert again.bottleneck is not None
    assert "busy" in again.bottleneck.line
