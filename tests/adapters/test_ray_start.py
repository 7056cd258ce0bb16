import subprocess
import sys

import psutil

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


def test_a_worker_that_does_not_end_by_itself_is_ended_with_its_ray() -> None:
    done = subprocess.run([sys.executable, "-c", DRIVER], capture_output=True, text=True, timeout=120, check=True)
    assert not psutil.pid_exists(int(done.stdout))
