"""The report of a conversion: counts, histograms, merging, the page."""

import json
import pickle
from html.parser import HTMLParser

import numpy as np
from scipy.spatial.transform import Rotation

from data_prep.engine.builder import write_record_set
from data_prep.engine.report import Report
from data_prep.engine.report_page import page
from tests.conversions import about, tiny, tiny_record

NO_HEADS = {
    "boxes": np.zeros((0, 4), np.float32),
    "rotations": np.zeros((0, 3, 3)),
    "has_pose": np.zeros(0, bool),
    "ignore": np.zeros(0, bool),
    "labels": np.zeros(0, int),
    "has_heading": np.zeros(0, bool),
    "headings": np.zeros(0, np.float32),
}


def test_report_counts_and_histograms(tmp_path):
    def read(number, report):
        record = tiny_record(number)
        if number % 3 == 2:
            yaw = Rotation.from_euler("Y", 40, degrees=True).as_matrix()
            record["rotations"] = np.stack([yaw, np.eye(3)]).astype(np.float32)
            record["has_pose"] = np.array([True, False])
            record["ignore"] = np.array([False, True])
            # The first one counts by its pose, whatever else is known of it.
            record["has_heading"] = np.array([True, number == 2])
        if number != 3:
            yield record

    write_record_set(tiny(read=read), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    train = report["splits"]["train"]
    assert train == {
        "images": 5,
        "images without heads": 1,
        "heads": 6,
        "heads with a pose": 2,
        "heads with a heading alone": 1,
        "heads to be ignored": 2,
        "labels": {"head": 6},
    }
    yaw = report["histograms"]["yaw"]
    assert dict(zip(yaw["edges"], [*yaw["counts"], 0], strict=True))[37.5] == 3
    assert sum(yaw["counts"]) == 3
    sizes = report["histograms"]["box size"]
    assert sizes["edges"][-1] is None
    # sqrt(29 * 28) = 28.5 pixels, nine heads
    assert dict(zip(sizes["edges"], [*sizes["counts"], 0], strict=True))[16] == 9


def random_record(rng: np.random.Generator) -> dict:
    count = int(rng.integers(0, 4))
    corners = rng.uniform(0, 100, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 300, (count, 2))], axis=1)
    return {
        "boxes": boxes.astype(np.float32),
        "rotations": Rotation.random(count, random_state=rng).as_matrix().reshape(-1, 3, 3),
        "has_pose": rng.random(count) < 0.7,
        "ignore": rng.random(count) < 0.2,
        "labels": rng.integers(0, 2, count),
        "has_heading": rng.random(count) < 0.5,
        "headings": rng.uniform(-180, 180, count).astype(np.float32),
    }


def tell(report: Report, number: int, record: dict) -> None:
    report.keep("train" if number % 3 else "test", record)
    report.note(f"event {number % 4}", f"place {number}")
    if number % 5 == 0:
        report.drop_head("no area", f"place {number}")


def test_reports_of_parts_merge_into_that_of_one_run():
    rng = np.random.default_rng(0)
    records = [random_record(rng) for _ in range(2500)]
    two_labels = about(label_names=("head", "helmet"))
    whole, merged = Report(two_labels), Report(two_labels)
    for number, record in enumerate(records):
        tell(whole, number, record)
    for start in range(0, 2500, 170):
        part = Report(two_labels)
        for number in range(start, min(start + 170, 2500)):
            tell(part, number, records[number])
        merged.merge(pickle.loads(pickle.dumps(part)))
    assert sorted(merged.as_dict()) == sorted(whole.as_dict())
    for key, value in whole.as_dict().items():
        assert merged.as_dict()[key] == value, key
    sizes = np.concatenate([r["boxes"][:, 2:] - r["boxes"][:, :2] for r in records]).prod(axis=1)
    small = int((np.sqrt(sizes) < 64).sum())
    assert sum(whole.as_dict()["histograms"]["box size"]["counts"][:4]) == small


def test_places_and_reasons_are_few_and_counts_are_whole():
    report = Report(about())
    for number in range(10_000):
        report.drop_image("damaged", f"image {number}")
        report.note(f"file of {number} bytes", f"image {number}")
    assert report.dropped_images == {"damaged": [f"image {number}" for number in range(5)]}
    assert report.as_dict()["dropped images"]["damaged"]["count"] == 10_000
    assert report.notes.total == 10_000
    assert report.notes.counts["other reasons"] == 9_900
    assert "10000 damaged: image 0, image 1" in report.text()
    assert len(pickle.dumps(report)) < 20_000


class Page(HTMLParser):
    """Tags that were left open, words, and the height of each bar."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.words, self.bars, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]
        if tag == "rect":
            self.bars.append(float(attributes["height"]))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page_is_whole_and_needs_nothing_else():
    report = Report(about(text="Heads & <hats>", homepage="https://example.org/?a=1&b=2"))
    rng = np.random.default_rng(1)
    for number in range(60):
        tell(report, number, {**random_record(rng), "labels": np.zeros(0, int)})
    report.drop_image("<cut> short", "a & b.jpg")
    found = Page(page(report))
    assert not found.open
    words = " ".join(found.words)
    for text in ("Heads & <hats>", "<cut> short", "a & b.jpg", "train", "no area"):
        assert text in words, text
    assert found.links == ["https://example.org/?a=1&b=2"]
    assert found.bars


def test_bars_are_as_high_as_the_counts():
    report = Report(about())
    for size, count in ((10, 4), (20, 2), (40, 1)):
        boxes = np.tile(np.array([[0, 0, size, size]], np.float32), (count, 1))
        pose = np.zeros(count, bool)
        rotations = np.tile(np.eye(3), (count, 1, 1))
        record = {"boxes": boxes, "rotations": rotations, "has_pose": pose, "ignore": pose}
        record.update(has_heading=pose, headings=np.zeros(count, np.float32))
        report.keep("train", {**record, "labels": np.zeros(count, int)})
    bars = Page(page(report)).bars  # no poses, so they are those of the sizes alone
    np.testing.assert_allclose(np.array(bars) / bars[0], [1, 0.5, 0.25], atol=0.002)


def test_page_of_a_report_without_heads():
    report = Report(about())
    tell(report, 1, {**random_record(np.random.default_rng(0)), **NO_HEADS})
    assert "None." in Page(page(report)).words


def test_headings_are_reported_where_there_are_any():
    report = Report(about())
    pose = np.array([False, False, False, True])
    record = {
        "boxes": np.tile(np.array([[0, 0, 20, 20]], np.float32), (4, 1)),
        "rotations": np.tile(np.eye(3), (4, 1, 1)),
        "has_pose": pose,
        "ignore": np.zeros(4, bool),
        "labels": np.zeros(4, int),
        "has_heading": np.array([True, True, False, True]),
        "headings": np.array([-180, 92, 0, 45], np.float32),  # the pose says more than its heading
    }
    report.keep("train", record)
    text = report.text()
    assert "1 with a pose, 2 with a heading alone, 0 to be ignored" in text
    bars = text[text.index("heading (degrees, of") : text.index("box size (")].splitlines()[1:]
    counts = {float(bar.split()[0]): int(bar.split()[3]) for bar in bars}
    assert counts.pop(-187.5) == counts.pop(82.5) == 1
    assert not any(counts.values())
    said = " ".join(Page(page(report)).words)
    assert "heads with a heading alone" in said
    assert "Histogram of heading" in page(report)


def test_a_set_without_headings_says_nothing_of_them():
    report = Report(about())
    tell(report, 1, {**random_record(np.random.default_rng(0)), **NO_HEADS})
    assert "heading" not in report.text()
    assert "heading" not in report.as_dict()["histograms"]
    assert "Heading" not in page(report)
