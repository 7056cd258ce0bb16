import json
import re
from pathlib import Path

from glint.serving.metrics import Metrics

REPOSITORY = Path(__file__).resolve().parents[2]
DASHBOARD, PAGE = REPOSITORY / "deployments" / "grafana.json", REPOSITORY / "docs" / "serving.md"


def exposed() -> set[str]:
    """The metrics of a replica, as Prometheus names them; a histogram's without the endings of its series."""
    return set(re.findall(r"^# TYPE (glint_\w+)", Metrics().text().decode(), re.MULTILINE))


def named(text: str) -> set[str]:
    return {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\bglint_[a-z_]+", text)}


def test_every_metric_of_the_dashboard_exists() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert named(" ".join(target["expr"] for panel in panels for target in panel["targets"])) == exposed()


def test_the_page_tells_of_every_metric() -> None:
    assert named(PAGE.read_text().partition("## Metrics")[2]) == exposed()
