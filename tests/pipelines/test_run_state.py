"""What a run writes down keeps its name from joining another."""

import json
from pathlib import Path

import pytest

from glint.core.errors import GlintError
from glint.pipelines.run_state import SNAPSHOT, alone_in, check_identity, last_epoch, write_identity

IDENTITY = {"recipe": "r1", "manifest": "m1", "weights": "none"}


def test_a_run_is_itself_and_no_other(tmp_path: Path) -> None:
    run = tmp_path / "spring"
    check_identity(run, IDENTITY)
    write_identity(run, IDENTITY)
    check_identity(run, IDENTITY)
    check_identity(run, {"recipe": "r1"})
    with pytest.raises(GlintError) as raised:
        check_identity(run, IDENTITY | {"manifest": "m2", "weights": "hub"})
    assert str(raised.value) == (
        "--name 'spring' is a run with other manifest (m1, not m2) and weights (none, not hub); choose another --name, "
        "or start it over with --fresh"
    )


def test_two_at_a_time_do_not_work_on_one_run(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "spring"
    with alone_in(run):
        with pytest.raises(GlintError, match=r"^spring is being worked on by another process"), alone_in(run):
            pytest.fail("two at a time")
        with alone_in(tmp_path / "runs" / "autumn"):
            pass
    with alone_in(run):
        pass


def test_the_last_epoch_is_that_of_the_last_checkpoint(tmp_path: Path) -> None:
    assert last_epoch(tmp_path) is None
    for latest, epoch in ((None, None), ({"checkpoint_dir_name": "epoch_00012"}, 12)):
        (tmp_path / SNAPSHOT).write_text(json.dumps({"latest_checkpoint_result": latest}))
        assert last_epoch(tmp_path) == epoch
