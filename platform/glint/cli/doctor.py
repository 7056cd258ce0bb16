"""glint doctor: what is configured, what is reachable, what is missing."""

from __future__ import annotations

import typer

from glint.cli.options import AsJson


def doctor(json: AsJson = False) -> None:
    """Check settings, disk, result store, registry and hardware, and say what to do about what is missing.

    Exits with 1 when something that is configured does not work.

    Examples:

        glint doctor

        GLINT_MLFLOW_URI=http://127.0.0.1:5000 glint doctor --json
    """
    from rich.text import Text

    from glint.cli.checks import examine
    from glint.cli.console import emit, progress
    from glint.cli.tables import rows
    from glint.settings import Settings

    with progress() as told:
        told.begin("looking around", None, "")
        findings = examine(Settings())
    marks = {"ok": Text("ok", "green"), "absent": Text("--", "yellow"), "broken": Text("!!", "red")}
    lines = [(marks[found.state], found.what, found.detail) for found in findings.findings]
    emit(findings, json, rows(["", "", ""], lines))
    raise typer.Exit(1 if any(found.state == "broken" for found in findings.findings) else 0)
