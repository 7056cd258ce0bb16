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
from glint.core.policy import Policy
from glint.pipelines.evaluation import Evaluation, ScoredSplit, Subject, assess
from glint.pipelines.report import write_report
from glint.pipelines.report.confusion import confusion_picture
from glint.pipelines.report.content import class_rows, file_name, percent, points, summary
from glint.pipelines.report.curves import curves, curves_picture
from glint.vision.bundle import Bundle
from glint.vision.explain import Explainer

CLASSES = ("good", "open", "short")
MODEL = ModelRef(name="boards", version="3", bundle="b" * 32, policy="c" * 16, engine="torch")
POLICY = Policy()
INSPECTION = Policy(accept_classes=("good",), review_below=0.6)
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
    guesses: Sequence[tuple[int, int, float]],
    uris: Sequence[str] | None = None,
    num_classes: int = 3,
    columns: dict[str, list[str | None]] | None = None,
) -> ScoredSplit:
    """One image for each (true class, predicted class, confidence)."""
    rows = []
    for _, guess, confidence in guesses:
        row = np.full(num_classes, (1 - confidence) / (num_classes - 1), dtype=np.float32)
        row[guess] = confidence
        rows.append(row)
    shares = np.stack(rows)
    return ScoredSplit(
        uris=list(uris or (f"/nowhere/{i}.jpg" for i in range(len(guesses)))),
        targets=np.array([truth for truth, _, _ in guesses]),
        probabilities=shares,
        raw=shares,
        columns=columns or {"group": ["L1"] * len(guesses)},
    )


def several_labels(num_images: int = 60) -> ScoredSplit:
    """Images with any of three labels, a tenth of them wrong."""
    random = np.random.default_rng(0)
    targets = (random.random((num_images, 3)) < 0.4).astype(np.float32)
    shares = np.where(random.random((num_images, 3)) < 0.1, 1 - targets, targets) * 0.8 + 0.1
    uris = [f"/nowhere/{i}.jpg" for i in range(num_images)]
    return ScoredSplit(uris, targets, shares, shares, {"group": [str(i % 30) for i in range(num_images)]})


def an_evaluation(
    split: ScoredSplit,
    classes: tuple[str, ...] = CLASSES,
    model: ModelRef = MODEL,
    policy: Policy = POLICY,
    against: ScoredSplit | None = None,
) -> Evaluation:
    other = (MODEL.model_copy(update={"version": "2"}), against) if against else None
    return assess(split, classes, Subject(model, policy, "/data/manifest.parquet", "d" * 64, "test"), other)


def a_page(
    folder: Path,
    split: ScoredSplit,
    classes: tuple[str, ...] = CLASSES,
    model: ModelRef = MODEL,
    policy: Policy = POLICY,
    against: ScoredSplit | None = None,
    explainer: Explainer | None = None,
) -> Page:
    write_report(folder, an_evaluation(split, classes, model, policy, against), split, Images(), explainer)
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
    assert report["per_class"]["open"] == {
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "support": 2,
        "given": 2,
    }


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


def test_hostile_columns_stay_text(tmp_path: Path) -> None:
    name, value = "<script>column", "<img src=x onerror=alert(3)>"
    split = a_split(
        MIXED, columns={"group": [None] * 7, name: [value, *["b"] * 6], "<iframe>": [str(i) for i in range(7)]}
    )
    page = a_page(tmp_path, split)
    assert not page.of("script", "img", "iframe")
    assert name in page.text
    assert value in page.text


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


def test_page_of_a_thousand_images_with_saliency_stays_small(tmp_path: Path, bundle: Bundle) -> None:
    noise = np.random.default_rng(0)
    uris = []
    for i in range(24):
        path = tmp_path / f"{i}.png"
        Image.fromarray(noise.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(path)
        uris.append(file_uri(str(path)))
    guesses = [(i % 4, (i + 1) % 4, 0.99) for i in range(24)] + [(i % 4, i % 4, 0.9) for i in range(1792)]
    split = a_split(guesses, [*uris, *["/elsewhere.png"] * 1792], num_classes=4)
    page = a_page(tmp_path / "report", split, bundle.info.classes, explainer=Explainer(bundle))
    assert len(page.of("img")) > 24 + 12
    assert len(page.html.encode()) < 1_200_000


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


GROUPS = [f"board{i % 30}" for i in range(300)]


def many(wrong_every: int = 7, confidence: float = 0.9) -> list[tuple[int, int, float]]:
    """300 images, a part of them wrong."""
    return [(i % 3, (i + 1) % 3 if i % wrong_every == 0 else i % 3, confidence) for i in range(300)]


def test_scores_stand_with_their_intervals_and_what_was_resampled(tmp_path: Path) -> None:
    split = a_split(many(), columns={"group": GROUPS})
    found = an_evaluation(split).intervals
    text = a_page(tmp_path, split).text
    assert found is not None
    assert found.accuracy is not None
    assert f"Accuracy 85.7% {percent(found.accuracy.low)} to {percent(found.accuracy.high)} 257 of 300" in text
    assert "1,000 bootstrap resamples of the 30 values of group; where all or none are right" in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["intervals"]["per_class"]["open"]["recall"].keys() == {"low", "high"}
    assert report["resampling"]["column"] == "group"


def test_the_column_that_stands_in_for_few_groups_is_named(tmp_path: Path) -> None:
    text = a_page(tmp_path, a_split(many(), columns={"group": ["L1"] * 300, "board": GROUPS})).text
    assert "They go by board because group has 1 value, fewer than 20" in text


def test_without_enough_groups_no_interval_is_given_and_the_page_says_why(tmp_path: Path) -> None:
    split = a_split(MIXED, columns={"group": ["L1", "L2", *["L1"] * 5]})
    text = a_page(tmp_path, split).text
    why = "group has 2 values, fewer than 20, and no other column that puts images together has as many"
    assert f"No intervals are given: {why}." in text
    assert " to " not in text[text.index("Accuracy") : text.index("No intervals")]
    assert json.loads((tmp_path / "report.json").read_text())["intervals"] is None


def test_averages_over_classes_that_are_too_rare_claim_no_interval(tmp_path: Path) -> None:
    rare = [(2, 2, 0.9) if i == 0 else (i % 2, i % 2 if i % 9 else 1 - i % 2, 0.9) for i in range(300)]
    text = a_page(tmp_path, a_split(rare, columns={"group": GROUPS})).text
    assert "Averages over the classes have none: a class is seen in fewer than 5 of these." in text


def test_decisions_are_stated_with_their_rates(tmp_path: Path) -> None:
    guesses = [(0, 0, 0.9), (0, 1, 0.9), (0, 0, 0.5), (1, 0, 0.9), (1, 1, 0.9), (2, 2, 0.9), (2, 2, 0.55), (2, 2, 0.9)]
    page = a_page(tmp_path, a_split(guesses), policy=INSPECTION)
    assert "Escape rate 20.0% Of 5 defective images, 1 would be accepted" in page.text
    assert "False-reject rate 33.3% Of 3 good images, 1 would be rejected" in page.text
    assert "Sent to review 25.0% Of all 8 images, a person would look at 2." in page.text
    assert "short 0 1 2 60.0%" in page.text
    assert json.loads((tmp_path / "report.json").read_text())["decisions"]["escape_rate"] == 0.2


def test_where_every_class_passes_no_escape_rate_is_claimed(tmp_path: Path) -> None:
    text = a_page(tmp_path, a_split(MIXED)).text
    assert "names no classes that pass" in text
    assert "Escape rate" not in text


def test_where_no_class_passes_that_is_said(tmp_path: Path) -> None:
    text = a_page(tmp_path, a_split(MIXED), policy=Policy(accept_classes=())).text
    assert "No class passes: whatever the model finds in an image is a defect." in text
    assert "Images taken for" not in text


def test_calibration_is_told_before_and_after(tmp_path: Path) -> None:
    split = a_split(many(), columns={"group": GROUPS})
    split.raw = a_split(many(confidence=0.6)).probabilities
    text = a_page(tmp_path, split, policy=Policy(temperature=0.5)).text
    assert "takes the error from 25.67% to 4.33%" in text
    assert "error 25.7%" in text
    assert "fitted on images that the policy does not name" in text
    assert "no temperature fitted" in a_page(tmp_path, split).text


def test_a_calibration_by_the_very_images_that_are_evaluated_is_warned_of(tmp_path: Path) -> None:
    split = a_split(many(), columns={"group": GROUPS})
    usual = a_page(tmp_path, split, policy=Policy(temperature=0.5, fitted_on="val")).text
    assert "fitted on the images of the split val)" in usual
    assert "This is that split" not in usual
    same = a_page(tmp_path, split, policy=Policy(temperature=0.5, fitted_on="test")).text
    assert "This is that split: on images that the temperature was not fitted on, the error will be larger." in same


def test_slices_show_the_worst_first_and_name_the_columns_left_out(tmp_path: Path) -> None:
    guesses = [(0, 0, 0.9)] * 4 + [(0, 1, 0.9)] * 2
    columns: dict[str, list[str | None]] = {
        "group": ["L1"] * 36,
        "camera": ([*["north"] * 3, *["south"] * 3]) * 6,
        "id": [str(i) for i in range(36)],
    }
    text = a_page(tmp_path, a_split(guesses * 6, columns=columns)).text
    assert text.index("south 33.3%") < text.index("north 100.0%")
    why = "id (36 values, more than 30, and none of them with 10 images)"
    assert f"Not sliced by: group (the same for every image), {why}." in text


def test_the_worst_of_many_slices_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    boards: list[str | None] = [f"B{i // 10}" for i in range(400)]
    guesses = [(0, int(i < 10), 0.9) for i in range(400)]
    text = a_page(tmp_path, a_split(guesses, columns={"group": ["L1"] * 400, "board": boards})).text
    assert "B0 0.0%" in text
    assert text.count(" 100.0% ") >= 29
    assert "10 more values of board are not shown" in text


def test_comparison_tells_who_is_right_where_and_whether_it_is_luck(tmp_path: Path) -> None:
    better, worse = (a_split(many(every), columns={"group": GROUPS}) for every in (10, 4))
    page = a_page(tmp_path, better, against=worse)
    assert "Against boards, version 2" in page.text
    assert "In macro-F1 this model is better by more than luck would explain." in page.text
    assert (
        "210 were right with both, 60 with this model alone, 15 with boards, version 2 alone, 15 with neither"
        in page.text
    )
    assert "Accuracy 90.0% 75.0% +15.0" in page.text
    assert "worse by more than luck" in a_page(tmp_path, worse, against=better).text
    assert "may be luck" in a_page(tmp_path, better, against=better).text


def test_the_page_says_why_nothing_is_compared(tmp_path: Path) -> None:
    assert "Nothing is compared: no other model was named." in a_page(tmp_path, a_split(MIXED)).text


def test_models_are_compared_on_the_images_that_both_could_score() -> None:
    split = a_split(MIXED)
    found = an_evaluation(split, against=split.take([1, 3, 5, 6])).comparison
    assert found is not None
    assert (found.num_images, found.both_right, found.both_wrong) == (4, 3, 1)
    elsewhere = a_split(MIXED, [f"/other/{i}.jpg" for i in range(7)])
    assert an_evaluation(split, against=elsewhere).comparison is None


def test_suspected_labels_are_shown_with_their_pictures(tmp_path: Path) -> None:
    guesses = [(0, 0, 0.8)] * 8 + [(0, 1, 0.97)] + [(1, 1, 0.9)] * 8
    uris = [a_picture(tmp_path / f"image {i}.png") for i in range(17)]
    page = a_page(tmp_path / "report", a_split(guesses, uris))
    assert "1 image of 17 looks more like another class" in page.text
    assert "open? labelled good image 8.png" in page.text
    (found,) = json.loads((tmp_path / "report/report.json").read_text())["label_errors"]
    assert (found["uri"], found["given"], found["suggested"]) == (uris[8], "good", "open")
    assert "None is suspected" in a_page(tmp_path, a_split([(0, 0, 0.9), (1, 1, 0.9)])).text


def test_mistakes_show_where_the_model_looked(tmp_path: Path, bundle: Bundle) -> None:
    uris = [a_picture(tmp_path / "a.png"), str(tmp_path / "gone.png")]
    split = a_split([(0, 1, 0.9), (0, 2, 0.8)], uris, num_classes=4)
    page = a_page(tmp_path / "report", split, bundle.info.classes, explainer=Explainer(bundle))
    looked = [image for image in page.of("img") if image["alt"] == "where the model looked"]
    assert len(looked) == 1
    assert "Grad-CAM" in page.text
    assert "cannot be shown: not found" in page.text


def test_several_labels_an_image_have_a_page_of_their_own_kind(tmp_path: Path) -> None:
    split = several_labels()
    page = a_page(tmp_path, split, policy=INSPECTION)
    assert "there is no confusion matrix" in page.text
    for name in ("Micro-F1", "Macro-F1", "Mean average precision", "Escape rate"):
        assert name in page.text
    assert "have all of their labels right" in page.text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["task"] == "multi"
    assert report["confusion_matrix"] == []
    assert report["intervals"]["micro_f1"] is not None
    assert report["intervals"]["per_class"]["good"]["recall"] is not None


def test_mistakes_of_several_labels_name_them_all(tmp_path: Path) -> None:
    targets = np.array([[1.0, 1, 0], [0, 0, 0]])
    shares = np.array([[0.9, 0.1, 0.2], [0.1, 0.1, 0.1]])
    split = ScoredSplit(["/a.jpg", "/b.jpg"], targets, shares, shares, {"group": ["x", "y"]})
    text = a_page(tmp_path, split).text
    assert "good 90.0% labelled good, open a.jpg" in text
    assert "b.jpg" not in text


def test_every_section_can_be_reached_from_the_contents(tmp_path: Path) -> None:
    page = a_page(tmp_path, a_split(MIXED))
    anchors = {str(link["href"]).removeprefix("#") for link in page.of("a")}
    assert len(anchors) == 12
    assert anchors <= {section.get("id") for section in page.of("section")}


def test_curves_are_one_picture_a_class_and_one_in_all_when_they_are_many() -> None:
    random = np.random.default_rng(0)
    for num_classes, panels in ((5, 5), (31, 1)):
        names = [f"class {i}" for i in range(num_classes)]
        targets = np.arange(310) % num_classes
        shares = random.dirichlet(np.ones(num_classes), 310)
        for kind in ("roc", "pr"):
            picture = curves_picture(kind, curves(kind, shares, targets, names, dict.fromkeys(names, 0.5)))
            assert picture is not None
            assert picture.svg.count(">0.500</text>") == panels
    assert ">mean of 31 classes</text>" in picture.svg


def test_a_class_with_few_images_has_no_curve_and_is_named(tmp_path: Path) -> None:
    page = a_page(tmp_path, a_split([(0, 0, 0.9)] * 10 + [(1, 1, 0.9)] * 10 + [(2, 0, 0.6)] * 9))
    drawn = page.html[page.html.index('id="curves"') : page.html.index('id="mistakes"')]
    assert (">good</text>" in drawn, ">short</text>" in drawn) == (True, False)
    assert "Too few images for a curve: short ." in page.text
    assert "there is no curve to draw" in a_page(tmp_path, a_split(MIXED)).text


@pytest.mark.parametrize(("difference", "text"), [(0.034, "+3.4"), (-0.0111, "\N{MINUS SIGN}1.1"), (0.0, "+0.0")])
def test_differences_are_in_points_with_their_sign(difference: float, text: str) -> None:
    assert points(difference) == text
