"""glint promote and rollback without Ray: what the registry is told; with it, in a process of its own."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tests.colours import register
from typer.testing import CliRunner

from glint.adapters.registry import Registry
from glint.cli import gating
from glint.cli.app import app
from glint.core.errors import GlintError
from glint.core.gate import Finding, GateReport, Margins
from glint.core.manifest import Manifest
from glint.core.outcome import ModelRef
from glint.vision.bundle import Bundle

GLINT = str(Path(sys.executable).with_name("glint"))
PASSED = Finding(rule="macro-F1", verdict="passed", measured="0.9 -> 0.9")
REFUSED = Finding(rule="latency", verdict="refused", measured="9.0 ms", limit="at most 3.0 ms", value=9, bound=3)


def report(name: str, *findings: Finding, champion: str | None = None) -> GateReport:
    return GateReport(
        challenger=ModelRef(name=name, version="2", bundle="b", policy="p", engine="torch"),
        champion=ModelRef(name=name, version=champion, bundle="b", policy="p", engine="torch") if champion else None,
        manifest="manifest.parquet",
        manifest_digest="0" * 64,
        split="test",
        num_images=100,
        left_out={},
        resampling=None,
        margins=Margins(),
        findings=findings,
        near_duplicates=(),
    )


def ask(*arguments: str) -> tuple[dict[str, Any], str]:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def recorded(registry: Registry, name: str, version: str) -> dict[str, Any]:
    client = mlflow.MlflowClient(registry.tracking_uri)
    record: dict[str, Any] = json.loads(client.get_model_version(name, version).tags["glint.promotion.champion"])
    return record


def reports(registry: Registry, name: str, version: str) -> list[GateReport]:
    client = mlflow.MlflowClient(registry.tracking_uri)
    run = client.get_model_version(name, version).run_id
    paths = [client.download_artifacts(run, kept.path) for kept in client.list_artifacts(run, "gate")]
    return [GateReport.model_validate_json(Path(path).read_bytes()) for path in paths]


def test_without_a_manifest_it_says_and_records_that_nothing_was_checked(registry: Registry, name: str) -> None:
    told, warned = ask("promote", name, "--version", "2")
    assert (told["version"], told["before"], told["gate"], told["report"]) == ("2", None, "unchecked", None)
    assert warned == "nothing was checked: with --manifest FILE the version has to pass the gate first\n"
    assert recorded(registry, name, "2")["gate"] == "unchecked"
    assert registry.alias(name, "champion") == "2"


def test_what_passes_the_gate_is_promoted_and_its_report_kept(registry: Registry, name: str) -> None:
    found = report(name, PASSED)
    promoted = gating.promote(registry, name, "2", "champion", found, None)
    assert (promoted.gate, promoted.version, registry.alias(name, "champion")) == ("passed", "2", "2")
    record = recorded(registry, name, "2")
    assert (record["gate"], record["reason"], record["refused"], record["manifest"]) == ("passed", None, [], "0" * 64)
    assert reports(registry, name, "2") == [found]


def test_what_the_gate_refuses_stays_out_and_its_report_is_kept(registry: Registry, name: str) -> None:
    registry.promote(name, "1", "champion")
    promoted = gating.promote(registry, name, "2", "champion", report(name, PASSED, REFUSED, champion="1"), None)
    assert (promoted.gate, promoted.version, registry.alias(name, "champion")) == ("refused", "1", "1")
    assert [one.refused for one in reports(registry, name, "2")] == [(REFUSED,)]
    assert gating.drawn(promoted)[-1] == f"models:/{name}@champion stays 1"


def test_a_champion_that_the_gate_has_not_compared_with_stays(registry: Registry, name: str) -> None:
    registry.promote(name, "1", "champion")
    with pytest.raises(GlintError, match=r"has become version 1 since the gate compared with nothing; the same"):
        gating.promote(registry, name, "2", "champion", report(name, PASSED), "in a hurry")
    with pytest.raises(GlintError, match=r"for version 2 to take its place"):
        gating.promote(registry, name, "2", "champion", None, None)
    assert registry.alias(name, "champion") == "1"


def test_an_approval_overrides_the_gate_and_is_recorded_with_user_reason_and_time(
    registry: Registry, name: str
) -> None:
    registry.promote(name, "1", "champion")
    promoted = gating.promote(
        registry, name, "2", "champion", report(name, PASSED, REFUSED, champion="1"), "new camera"
    )
    assert (promoted.gate, registry.alias(name, "champion")) == ("approved", "2")
    record = recorded(registry, name, "2")
    assert (record["reason"], record["refused"], record["before"]) == ("new camera", ["latency"], "1")
    assert record["by"]
    assert datetime.fromisoformat(record["at"]).tzinfo


def test_an_approval_that_was_not_needed_is_kept_and_the_gate_has_passed(registry: Registry, name: str) -> None:
    assert gating.promote(registry, name, "2", "champion", report(name, PASSED), "in a hurry").gate == "passed"
    record = recorded(registry, name, "2")
    assert (record["gate"], record["reason"]) == ("passed", "in a hurry")


def test_a_policy_that_stays_behind_is_told(registry: Registry, name: str, sighted: Bundle) -> None:
    registry.promote(name, "1", "champion")
    registry.put_policy(name, "1", sighted.policy.model_copy(update={"review_below": 0.9}).model_dump_json())
    _, warned = ask("promote", name, "--version", "2", "--approve", "a try")
    assert "the policy that was set for version 1 stays with it" in " ".join(warned.split())


@pytest.mark.parametrize("options", [("--approve", " "), ("--approve", " ", "--manifest", "m.parquet")])
def test_an_approval_needs_a_reason(registry: Registry, name: str, options: tuple[str, ...]) -> None:
    with pytest.raises(GlintError, match=r"--approve ' ' overrides the gate, so it needs a reason"):
        ask("promote", name, "--version", "2", *options)
    assert registry.alias(name, "champion") is None


def test_a_champion_is_not_replaced_without_gate_or_reason(registry: Registry, name: str) -> None:
    ask("promote", name, "--version", "1")
    refusal = rf"models:/{name}@champion is version 1: for version 2 to take its place, --manifest FILE asks the gate"
    with pytest.raises(GlintError, match=refusal):
        ask("promote", name, "--version", "2")
    assert registry.alias(name, "champion") == "1"
    assert ask("promote", name, "--version", "1")[0]["before"] == "1", "which replaces nothing"
    assert ask("promote", name, "--version", "2", "--alias", "canary")[0]["version"] == "2"
    told, warned = ask("promote", name, "--version", "2", "--approve", "line 4 is down")
    assert (told["version"], told["before"], told["gate"]) == ("2", "1", "unchecked")
    assert "nothing was checked" in warned
    record = recorded(registry, name, "2")
    assert (record["gate"], record["reason"]) == ("unchecked", "line 4 is down")


def test_a_manifest_or_version_that_is_not_there_is_told_before_anything_starts(
    name: str, colours: Manifest, registry: Registry
) -> None:
    with pytest.raises(GlintError, match=r"--manifest .*absent\.parquet does not exist"):
        ask("promote", name, "--version", "2", "--manifest", "absent.parquet")
    with pytest.raises(GlintError, match="no version 9"):
        ask("promote", name, "--version", "9", "--manifest", str(colours.path))
    assert registry.alias(name, "champion") is None


def test_rollback_undoes_promotions_one_by_one(name: str) -> None:
    for version in ("1", "2"):
        ask("promote", name, "--version", version, "--approve", "a try")
    told, _ = ask("rollback", name)
    assert (told["version"], told["before"]) == ("1", "2")
    with pytest.raises(GlintError, match="nothing to go back to"):
        ask("rollback", name)


@pytest.mark.slow
def test_gate_approval_rollback_and_policy_from_the_command_line(
    sighted: Bundle, blind: Bundle, colours: Manifest, tmp_path: Path
) -> None:
    """The whole way, typed: a Ray starts for each gate, and for the policy."""
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert [register(registry, "colours", bundle) for bundle in (sighted, blind)] == ["1", "2"]

    def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"GLINT_HOME": str(tmp_path), "COLUMNS": "200"}
        return subprocess.run([GLINT, *arguments], env=environment, check=False, text=True, capture_output=True)

    gate = ("--manifest", str(colours.path), "--latency-factor", "1000")
    first = typed("promote", "colours", "--version", "1")
    assert (first.returncode, first.stdout) == (0, "models:/colours@champion is version 1\n")
    worse = typed("promote", "colours", "--version", "2", *gate, "--json")
    assert worse.returncode == 1, worse.stderr
    lines = [line for line in worse.stderr.splitlines() if line.startswith("glint: refused by ")]
    assert [line.split(":")[1] for line in lines] == [" refused by macro-F1", " refused by recall of red"]
    told = json.loads(worse.stdout)
    assert (told["gate"], told["version"]) == ("refused", "1")
    approved = typed("promote", "colours", "--version", "2", *gate, "--approve", "red is out of use", "--json")
    assert approved.returncode == 0, approved.stderr
    assert json.loads(approved.stdout)["gate"] == "approved"
    assert json.loads(typed("rollback", "colours", "--json").stdout)["version"] == "1"
    priced = typed(
        *("policy", "colours", "--missed-defect", "9", "--false-alarm", "2", "--human-look", "1"),
        *("--accept-class", "blue", "--manifest", str(colours.path)),
    )
    assert priced.returncode == 0, priced.stderr
    assert "policy 1 (" in priced.stdout
    assert "escape rate" in priced.stdout
