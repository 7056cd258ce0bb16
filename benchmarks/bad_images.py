"""Five files that are no good images among good ones: every stage goes on, and batch gives one outcome for every file.

python benchmarks/bad_images.py
"""

import json
import struct
import subprocess
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from common import GLINT, end, glint

from glint.pipelines.boards import write_boards

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "recipes" / "boards.yaml"
EXPECTED = {
    "truncated.jpg": (400, "undecodable"),
    "empty.jpg": (400, "undecodable"),
    "text.jpg": (415, "undecodable"),
    "zero.png": (400, "undecodable"),
    "huge.png": (413, "too_large"),
}


def png(width: int, height: int) -> bytes:
    """A PNG of that size, one bit a pixel and black all over."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")


def spoil(folder: Path, good: bytes) -> None:
    """Put the five files into `folder`."""
    (folder / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a picture\n" * 20)
    (folder / "zero.png").write_bytes(png(0, 0))
    (folder / "huge.png").write_bytes(png(30_000, 30_000))


def served(model: str, home: Path, files: list[Path]) -> dict[str, int]:
    """The HTTP status that each file gets from `glint serve`."""
    command = [str(GLINT), "serve", "--model", model, "--port", "0", "--json"]
    environment = {"GLINT_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home)}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        return {file.name: ask(f"{url}/v1/classify", file.read_bytes()) for file in files}
    finally:
        server.terminate()
        server.wait(60)


def ask(url: str, body: bytes) -> int:
    """POST a body and return the status."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, {"Content-Type": "image/jpeg"}), timeout=60
        ) as got:
            return got.status
    except urllib.error.HTTPError as error:
        return error.code


with tempfile.TemporaryDirectory() as directory:
    home = Path(directory)
    images, manifest = home / "boards", home / "manifest.parquet"
    write_boards(images, 700, size=96)
    (images / "labels.csv").unlink()
    good = sorted((images / "good").iterdir())[0]
    spoil(images / "good", good.read_bytes())
    snapshot = glint("snapshot", images, "--labels", "folders", "--out", manifest, home=home)
    train = ("--recipe", RECIPE, "--manifest", manifest, "--set", "optimisation.epochs=1")
    trained = glint("train", *train, home=home)
    model = f"models:/{trained['model']}/{trained['version']}"
    batch = glint("batch", "run", "--model", model, "--input", images, home=home)
    results = glint("batch", "results", batch["job"], home=home)
    statuses = served(model, home, [images / "good" / name for name in EXPECTED] + [good])
outcomes = {outcome["uri"].rpartition("/")[2]: outcome for outcome in results["outcomes"]}
wrong = {name: outcomes[name]["status"] for name, (_, status) in EXPECTED.items() if outcomes[name]["status"] != status}
wrong |= {name: statuses[name] for name, (status, _) in EXPECTED.items() if statuses[name] != status}
wrong |= {
    name: outcome["status"] for name, outcome in outcomes.items() if outcome["status"] != "ok" and name not in EXPECTED
}
wrong |= {good.name: statuses[good.name]} if statuses[good.name] != 200 else {}
missing = snapshot["num_images"] - len(results["outcomes"])
end(
    "bad_images",
    len(wrong) + missing,
    "files with a wrong status, or none",
    "0",
    {
        "files": snapshot["num_images"],
        "outcomes": len(results["outcomes"]),
        "left_out_of_training": trained["bad_images"],
        "reasons": {name: outcomes[name]["error"]["type"] for name in EXPECTED},
        "http": statuses,
    },
)
