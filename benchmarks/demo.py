"""How long `glint demo` takes after set-up, and how much memory: at most 4 minutes and 8 GB on 2 cores.

python benchmarks/demo.py
"""

import tempfile
from pathlib import Path

from common import Clock, MemoryWatch, end, glint

with tempfile.TemporaryDirectory() as directory, MemoryWatch() as memory:
    folder, clock = Path(directory), Clock()
    made = glint("demo", "--folder", folder / "demo", home=folder / "home")
    seconds = clock.seconds()
end(
    "demo",
    seconds,
    "s",
    "at most 240 s and 8 GB",
    {
        "peak_memory_gb": round(memory.peak_bytes / 1e9, 2),
        "macro_f1": round(made["macro_f1"], 4),
        "stages_s": {stage["name"]: stage["seconds"] for stage in made["stages"]},
    },
)
