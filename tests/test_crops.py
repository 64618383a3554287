"""Crops round heads: one head each, where it should be, as the crop shows it."""

import functools
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.engine.builder import write_record_set as convert
from data_prep.engine.description import Description
from data_prep.engine.report import Report
from data_prep.own import crops, csv_heads, record_items
from data_prep.own.crops import CropOptions, read_crops
from data_prep.own.record_items import RecordItem
from mtnet_jax.data.images import decode_image
from mtnet_jax.data.records import RecordSource
from mtnet_jax.rotations import euler_to_rotation, geodesic_degrees
from tests.record_sets import a_record, write_record_set

ITEM = RecordItem("", "train", 0, Path())
LEFT, RIGHT = [6.0, 10, 26, 34], [34.0, 12, 56, 30]  # of an image of 64x48


def cut(monkeypatch, record, **options):
    report = Report(Description("mine", "1.0.0", "", "head", ("head",), "", "", ""))
    monkeypatch.setattr(crops, "record_of", lambda item, frame: record)
    found = read_crops(ITEM, report, name="mine", options=CropOptions(**options))
    return list(found), report


def posed(boxes, **more):
    turned = [
        euler_to_rotation(np.array([30.0 * i, 0, 0]), convention="canonical")
        for i in range(len(boxes))
    ]
    return a_record("photo", boxes=boxes, rotations=turned, **more)


def test_each_head_counts_in_its_own_crop_alone(monkeypatch):
    record = posed([LEFT, RIGHT])
    (first, second), _ = cut(monkeypatch, record, head_min=0.3, head_max=0.3)
    assert (first["image_id"], second["image_id"]) == ("photo#0", "photo#1")
    for crop, rotation in zip((first, second), record["rotations"], strict=True):
        (own,) = np.flatnonzero(~crop["ignore"])
        np.testing.assert_allclose(crop["rotations"][own], rotation, atol=1e-6)
        assert crop["ignore"].sum() == 1  # the other one is in view
        assert decode_image(crop["image"]).shape == (96, 96, 3)
        assert not crop["intrinsics"].any()


def test_the_box_is_that_of_the_head_in_the_crop(monkeypatch):
    record = posed([LEFT])
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[10:34, 6:26] = 255  # the head is white
    record["image"] = cv2.imencode(".png", pixels)[1].tobytes()
    (crop,), _ = cut(monkeypatch, record)
    rows, columns = np.nonzero(decode_image(crop["image"]).mean(axis=-1) > 128)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # The grey beyond the image is darker than that; a pixel of blur at the edges.
    np.testing.assert_allclose(crop["boxes"][0], seen, atol=2)
    side = (crop["boxes"][0, 2:] - crop["boxes"][0, :2]).max()
    assert 0.4 <= side / 96 <= 0.8


def test_the_same_head_is_always_cut_in_the_same_way(monkeypatch):
    once, again = (cut(monkeypatch, posed([LEFT, RIGHT]))[0] for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert one["image"] == other["image"]
        np.testing.assert_array_equal(one["boxes"], other["boxes"])


@pytest.mark.parametrize(
    ("record", "options", "reason"),
    [
        (posed([LEFT], ignore=[True]), {}, "ignored"),
        (posed([LEFT]), {"smallest": 30.0}, "smaller than 30 pixels"),
        (a_record("photo", boxes=[LEFT]), {"posed": True}, "without a pose"),
    ],
)
def test_what_gets_no_crop_is_counted(monkeypatch, record, options, reason):
    found, report = cut(monkeypatch, record, **options)
    assert found == []
    assert f"1 heads without a crop: {reason}" in report.text()


def test_rotations_are_those_that_the_crop_shows(tmp_path):
    # The converter reads rotations in the frame of the ray; `tests/test_camera.py` has that frame.
    record = posed([RIGHT], intrinsics=(50, 50, 32, 24))
    write_record_set(tmp_path / "tiny", {"train": [record]})
    made = crops.conversion(tmp_path / "tiny", name="mine", options=CropOptions())
    report = Report(made.description)
    (crop,) = made.read(made.splits["train"][0], report)
    x, y = (45 - 32) / 50, (21 - 24) / 50  # of the ray through the middle of the box
    off_axis = np.rad2deg(np.arctan(np.hypot(x, y)))
    turned = geodesic_degrees(np.float64(crop["rotations"][0]), np.float64(record["rotations"][0]))
    assert turned == pytest.approx(off_axis, abs=1e-3)


def test_records_that_were_made_anew_are_read_again(tmp_path, monkeypatch):
    """Between a conversion that was stopped and the one that goes on."""
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((48, 64, 3), 90, np.uint8))

    def label(left):
        rows = "".join(f"{name}.png,{left},5,{left + 20},30\n" for name in "ab")
        (tmp_path / "heads.csv").write_text(f"image,x1,y1,x2,y2\n{rows}")
        labelled = csv_heads.conversion(tmp_path, tmp_path / "heads.csv", name="set")
        convert(labelled, tmp_path / "set", overwrite=True)
        record_items._source.cache_clear()
        return crops.conversion(tmp_path / "set", name="mine", options=CropOptions())

    read = crops.read_crops

    def stopped(item, report, **options):
        if item.index == 1:
            raise KeyboardInterrupt
        return read(item, report, **options)

    with monkeypatch.context() as patch:
        patch.setattr(crops, "read_crops", functools.wraps(read)(stopped))
        with pytest.raises(KeyboardInterrupt):
            convert(label(5), tmp_path / "mine")
    assert list(tmp_path.glob(".mine.parts/*.pickle"))
    convert(label(40), tmp_path / "mine")
    made = RecordSource(tmp_path / "mine", "train")
    (tmp_path / "once").mkdir()
    convert(label(40), tmp_path / "once" / "mine")
    expected = RecordSource(tmp_path / "once" / "mine", "train")
    assert [made.raw(i) for i in range(2)] == [expected.raw(i) for i in range(2)]
