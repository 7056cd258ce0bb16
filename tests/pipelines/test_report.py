"""The evaluation report, as the people and programs that open it find it."""

import base64
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glint.adapters.files import file_uri
from glint.adapters.images import Images
from glint.core.errors import GlintError
from glint.core.metrics import classification_scores
from glint.core.outcome import ModelRef
from glint.pipelines.evaluation import Evaluation, ScoredSplit
from glint.pipelines.report import write_report
from glint.pipelines.report.content import class_rows, file_name, percent, summary
from glint.pipelines.report.figures import confusion_picture

CLASSES = ("good", "open", "short")
MODEL = ModelRef(name="boards", version="3", bundle="b" * 32, policy="c" * 16, engine="torch")
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, attributes and visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self._text.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def a_split(
    guesses: Sequence[tuple[int, int, float]], uris: Sequence[str] | None = None, num_classes: int = 3
) -> ScoredSplit:
    """One image for each (true class, predicted class, confidence)."""
    split = ScoredSplit(uris=list(uris or (f"/nowhere/{i}.jpg" for i in range(len(guesses)))))
    for truth, guess, confidence in guesses:
        row = np.full(num_classes, (1 - confidence) / (num_classes - 1), dtype=np.float32)
        row[guess] = confidence
        split.targets.append(truth)
        split.probabilities.append(row)
    return split


def an_evaluation(split: ScoredSplit, classes: tuple[str, ...] = CLASSES, model: ModelRef = MODEL) -> Evaluation:
    reasons = list(split.left_out.values())
    return Evaluation(
        **dict(classification_scores(split.targets, np.stack(split.probabilities).argmax(1), classes)),
        model=model,
        manifest="/data/manifest.parquet",
        manifest_digest="d" * 64,
        split="test",
        left_out={reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
    )


def a_page(folder: Path, split: ScoredSplit, classes: tuple[str, ...] = CLASSES, model: ModelRef = MODEL) -> Page:
    write_report(folder, an_evaluation(split, classes, model), split, Images())
    return Page(folder / "report.html")


def a_picture(path: Path, size: tuple[int, int] = (320, 200)) -> str:
    Image.new("RGB", size, "seagreen").save(path)
    return file_uri(str(path))


MIXED = [(0, 0, 0.9), (0, 0, 0.8), (0, 1, 0.7), (1, 1, 0.9), (1, 2, 0.95), (2, 2, 0.6), (2, 0, 0.99)]


def test_report_json_has_every_score_at_its_top_level(tmp_path: Path) -> None:
    split = a_split(MIXED)
    write_report(tmp_path / "new" / "report", an_evaluation(split), split, Images())
    report = json.loads((tmp_path / "new/report/report.json").read_text())
    assert report["accuracy"] == pytest.approx(4 / 7)
    assert {"balanced_accuracy", "macro_f1", "model", "manifest_digest", "split", "left_out"} <= report.keys()
    assert report["classes"] == list(CLASSES)
    assert report["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [1, 0, 1]]
    assert report["per_class"]["open"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}


def test_page_says_what_was_scored_and_how_well(tmp_path: Path) -> None:
    text = a_page(tmp_path, a_split(MIXED)).text
    assert "boards, version 3" in text
    assert "test split" in text
    assert "7 images" in text
    assert "Accuracy 57.1% 4 of 7 images were given the right label." in text
    assert "good 66.7% 66.7% 66.7% 3" in text
    for origin in ("b" * 32, "c" * 16, "d" * 64, "/data/manifest.parquet", "torch", "UTC"):
        assert origin in text


def test_page_opens_with_the_worst(tmp_path: Path) -> None:
    split = a_split([*[(0, 0, 0.9)] * 8, *[(1, 2, 0.9)] * 2, (1, 1, 0.9), (2, 2, 0.9)])
    text = a_page(tmp_path, split).text
    assert "Most often missed is open : 33.3% of its 3 images were recognised." in text
    assert "open taken for short , 2 times." in text


def test_page_asks_nothing_of_the_network_and_runs_no_script(tmp_path: Path) -> None:
    split = a_split(MIXED, [a_picture(tmp_path / f"{i}.png") for i in range(len(MIXED))])
    page = a_page(tmp_path / "report", split)
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "srcset", "href", "xlink:href", "data", "action", "poster"}
    ]
    assert addresses, "the thumbnails are addresses too"
    assert all((address or "").startswith(("data:image/", "#")) for address in addresses)
    assert not page.of("script", "link", "iframe", "object", "embed", "base")
    assert not re.search(r"https?:|@import|url\((?!#)", page.html)
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    classes = ("\"'><script>alert(1)</script>", "$\\frac{x$ <b>", "--> ]]> </svg><img src=x onerror=alert(2)>")
    uris = [f"/tmp/<script>alert({i})</script>\" onerror='x' & {{{{7*7}}}}.jpg" for i in range(len(MIXED))]
    split = a_split(MIXED, uris)
    split.left_out = {"/tmp/<iframe src=x>.jpg": "<script>"}
    page = a_page(tmp_path, split, classes, MODEL.model_copy(update={"name": "<script>model"}))
    assert not page.of("script", "img", "iframe")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for name in (*classes[:2], "<script>model, version 3", "{{7*7}}.jpg", "<iframe src=x>.jpg"):
        assert name in page.text


def test_class_names_in_any_script_or_with_control_characters_are_drawn(tmp_path: Path) -> None:
    picture = confusion_picture(("良好な基板", "a\nb\x00c\u202e", "x" * 300), [[3, 1, 0], [0, 2, 0], [0, 0, 1]])
    assert ">良好な基板</text>" in picture.svg
    assert ">a b c </text>" in picture.svg
    assert f">{'x' * 23}…</text>" in picture.svg


def test_only_mistakes_are_shown_the_surest_first(tmp_path: Path) -> None:
    uris = [a_picture(tmp_path / f"image {i}.png") for i in range(len(MIXED))]
    page = a_page(tmp_path / "report", a_split(MIXED, uris))
    places = [page.text.index(f"image {i}.png") for i in (6, 4, 2)]
    assert places == sorted(places)
    assert "good 99.0% labelled short image 6.png" in page.text
    assert "image 0.png" not in page.text
    assert "All 3 wrong labels" in page.text


def test_thumbnails_are_small_jpegs_of_the_whole_picture(tmp_path: Path) -> None:
    page = a_page(tmp_path / "report", a_split([(0, 1, 0.9), (0, 0, 0.9)], [a_picture(tmp_path / "a.png"), "b"]))
    (source,) = (attributes["src"] for attributes in page.of("img"))
    assert source
    thumbnail = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))
    assert thumbnail.format == "JPEG"
    assert thumbnail.size == (160, 100)


def test_a_mistake_whose_picture_is_gone_or_broken_shows_why(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no picture")
    uris = [a_picture(tmp_path / "a.png"), str(tmp_path / "broken.jpg"), str(tmp_path / "gone.jpg")]
    page = a_page(tmp_path / "report", a_split([(0, 1, 0.9)] * 3, uris))
    assert len(page.of("img")) == 1
    assert "cannot be shown: not an image open 90.0% labelled good broken.jpg" in page.text
    assert "cannot be shown: not found open 90.0% labelled good gone.jpg" in page.text


def test_at_most_24_mistakes_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    page = a_page(tmp_path, a_split([(0, 1, 0.9)] * 30))
    assert page.text.count("cannot be shown") == 24
    assert "The 24 of 30 wrong labels" in page.text


def test_a_model_without_mistakes_gets_a_page_that_says_so(tmp_path: Path) -> None:
    text = a_page(tmp_path, a_split([(0, 0, 0.9), (1, 1, 0.9)])).text
    assert "Every one of these images was given the right label." in text
    assert "no image was given a wrong label" in text
    assert "short – – – 0" in text


def test_left_out_images_are_counted_and_named_with_their_reasons(tmp_path: Path) -> None:
    split = a_split(MIXED)
    split.left_out = {f"file:///lot%20A/{i}.jpg": "not_an_image" for i in range(29)}
    split.left_out["az://container/z.jpg"] = "truncated"
    text = a_page(tmp_path, split).text
    assert "30 images could not be scored and are in no figure of this report: not an image 29, truncated 1." in text
    assert "0.jpg not an image" in text
    assert "And 6 more." in text
    assert "every labelled image of the split could be read" in a_page(tmp_path, a_split(MIXED)).text


def test_a_model_outside_the_registry_is_named_by_its_bundle(tmp_path: Path) -> None:
    model = MODEL.model_copy(update={"name": None, "version": None})
    assert "Bundle bbbbbbbbbbbb" in a_page(tmp_path, a_split(MIXED), model=model).text


def test_a_new_report_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    a_page(tmp_path, a_split(MIXED))
    page = a_page(tmp_path, a_split([(0, 0, 0.9), (1, 1, 0.9)]))
    assert "2 images" in page.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert json.loads((tmp_path / "report.json").read_text())["num_images"] == 2


@pytest.mark.parametrize("place", ["file", "file/report"])
def test_a_report_folder_that_is_a_file_is_the_users_mistake(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    split = a_split(MIXED)
    with pytest.raises(GlintError, match=f"--report .*{place}"):
        write_report(tmp_path / place, an_evaluation(split), split, Images())
    assert (tmp_path / "file").read_text() == "mine"


def test_a_report_whose_name_is_taken_by_a_folder_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    split = a_split(MIXED)
    with pytest.raises(GlintError, match="--report"):
        write_report(tmp_path, an_evaluation(split), split, Images())
    assert not list(tmp_path.glob(".*"))


def test_confusion_cells_carry_count_and_share_of_the_row_up_to_30_classes() -> None:
    picture = confusion_picture(CLASSES, [[1234, 1, 0], [0, 3, 1], [0, 0, 0]])
    cells = re.findall(r">([^<>]+)</text>", picture.svg)
    for label in ("1,234", "&gt;99%", "&lt;1%", "75%", "25%", *CLASSES):
        assert label in cells
    assert "0" not in cells
    assert confusion_picture([f"c{i}" for i in range(30)], np.eye(30, dtype=int).tolist()).svg.count(">100%<") == 30


def test_confusion_cells_have_no_text_where_it_could_not_be_read() -> None:
    names = [f"class {i}" for i in range(31)]
    picture = confusion_picture(names, np.eye(31, dtype=int).tolist())
    assert (picture.written, picture.named) == (False, True)
    assert "100%" not in picture.svg
    assert ">class 30</text>" in picture.svg
    crowded = confusion_picture([f"class {i}" for i in range(101)], np.eye(101, dtype=int).tolist())
    assert (crowded.written, crowded.named) == (False, False)


def test_confusion_picture_takes_its_ink_from_the_page_and_is_the_same_each_time() -> None:
    first, second = (confusion_picture(CLASSES, [[2, 1, 0], [0, 1, 1], [1, 0, 1]]) for _ in range(2))
    assert "currentColor" in first.svg
    assert "var(--page)" in first.svg
    assert first == second


def test_page_of_a_thousand_images_stays_below_a_megabyte(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    uris = []
    for i in range(24):
        path = tmp_path / f"{i}.png"
        Image.fromarray(noise.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(path)
        uris.append(file_uri(str(path)))
    classes = tuple(f"defect_{i}" for i in range(7))
    guesses = [(i % 7, (i + 1) % 7, 0.99) for i in range(24)] + [(i % 7, i % 7, 0.9) for i in range(1792)]
    split = a_split(guesses, [*uris, *["/elsewhere.png"] * 1792], num_classes=7)
    page = a_page(tmp_path / "report", split, classes)
    assert len(page.of("img")) == 24
    assert len(page.html.encode()) < 1_000_000


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.9449, 1, "94.5%"), (1.0, 1, "100.0%"), (0.9999, 1, ">99.9%"), (0.0, 1, "0.0%"), (0.0001, 1, "<0.1%")]
    + [(0.996, 0, ">99%"), (0.004, 0, "<1%"), (1.0, 0, "100%"), (None, 1, "–")],
)
def test_percentages_never_claim_perfection_by_rounding(share: float | None, digits: int, text: str) -> None:
    assert percent(share, digits) == text


def test_undefined_scores_are_not_shown_as_zero() -> None:
    scores = classification_scores([0, 0, 1], [0, 0, 0], CLASSES)
    good, opened, short = class_rows(scores)
    assert good.precision == pytest.approx(2 / 3)
    assert good.recall == 1.0
    assert (opened.precision, opened.recall, opened.f1) == (None, 0.0, 0.0)
    assert (short.precision, short.recall, short.f1) == (None, None, None)


def test_the_weakest_class_is_one_that_has_images() -> None:
    found = summary(classification_scores([0, 0, 1, 1], [0, 0, 1, 0], CLASSES))
    assert found.weakest is not None
    assert found.weakest.name == "open"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///lot%20A/b%C3%B6se.jpg", "böse.jpg"),
        ("az://container/lot/a%20b.jpg", "a%20b.jpg"),
        ("/data/c.jpg", "c.jpg"),
    ],
)
def test_files_are_named_as_a_person_would(uri: str, name: str) -> None:
    assert file_name(uri) == name
