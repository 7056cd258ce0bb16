import inspect
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
import ray
from ray._private import node

from glint.adapters.ray_start import TIMED_OUT, start_ray
from glint.core.errors import GlintError

DRIVER = """
import atexit
import os
import time

import ray

from glint.adapters.ray_start import start_ray

start_ray(num_cpus=2)


@ray.remote(num_cpus=0)
class Worker:
    def pid(self):
        atexit.register(time.sleep, 1000)
        return os.getpid()


worker = Worker.remote()
pid = ray.get(worker.pid.remote())
worker.__ray_terminate__.remote()
time.sleep(1)  # for it to be about to end, and no longer one that Ray knows of
print(pid)
"""

LEFT_AT_WORK = """
import atexit
import os

import psutil
import ray

from glint.adapters.ray_start import start_ray
from glint.cli.interruption import leave
from glint.core.threads import in_thread

start_ray(num_cpus=2)


@ray.remote(num_cpus=0)
class Worker:
    def pid(self):
        return os.getpid()


worker = Worker.remote()
ray.get(worker.pid.remote())
print(*[process.pid for process in psutil.Process().children(recursive=True)])
atexit.register(print, "an orderly end, in which that thread would crash now and then")


def work():
    while True:
        ray.get(worker.pid.remote())


def interrupt():
    raise KeyboardInterrupt


try:
    in_thread(work, interrupt)
except KeyboardInterrupt:
    leave(130)
"""


@pytest.mark.slow
def test_a_process_with_a_thread_at_work_in_ray_ends_with_its_code_and_its_ray() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_AT_WORK], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) >= 3  # raylet, GCS, worker
    left = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    assert not psutil.wait_procs(left, timeout=10)[1]


@pytest.mark.slow
def test_a_worker_that_does_not_end_by_itself_is_ended_with_its_ray() -> None:
    done = subprocess.run([sys.executable, "-c", DRIVER], capture_output=True, text=True, timeout=120, check=True)
    assert not psutil.pid_exists(int(done.stdout))


def test_a_ray_that_does_not_start_in_time_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TIMED_OUT in inspect.getsource(node)

    def too_busy(*_: object, **__: object) -> None:
        raise Exception(f"The current node {TIMED_OUT}. This could happen because of anything.")

    monkeypatch.setattr(ray, "init", too_busy)
    with pytest.raises(GlintError, match="Ray did not start within 30 s: this machine is too busy"):
        start_ray(2)
