import json
import os
import re
import subprocess
import sys
from pathlib import Path

from glint.serving.metrics import SHARED, Metrics

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


COUNT = """
from glint.core.outcome import ModelRef
from glint.serving.metrics import Metrics
metrics = Metrics()
metrics.pending.inc()
metrics.image("boards", "ok", 0.003)
metrics.serves("boards", "champion", ModelRef(name="boards", version="1", bundle="b", policy="p", engine="torch"))
print(metrics.text().decode())
"""


def test_one_replica_tells_for_all_and_forgets_what_those_that_ended_had_in_hand(tmp_path: Path) -> None:
    environment = os.environ | {SHARED: str(tmp_path)}

    def replica() -> str:
        return subprocess.check_output([sys.executable, "-c", COUNT], env=environment, text=True)

    texts = [replica() for _ in range(2)]
    for number, text in enumerate(texts, start=1):
        assert f'glint_images_total{{model="boards",outcome="ok"}} {number}.0' in text
        assert f'glint_image_seconds_bucket{{le="0.005",model="boards"}} {number}.0' in text
        assert "glint_pending_images 1.0" in text
        assert 'glint_model_info{bundle="b",model="boards",role="champion",version="1"} 1.0' in text
