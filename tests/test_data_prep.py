"""Converters: the builder, Pointing'04, YOLO label files, reports and the command."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy.spatial.transform import Rotation
from tensorflow_datasets.core import shuffle

from data_prep import convert, pointing04, yolo
from data_prep.builder import write_record_set
from data_prep.conversion import Conversion, Description
from data_prep.report import Report
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.rotations import geodesic_degrees

REPOSITORY = Path(__file__).resolve().parent.parent


def jpeg(height=40, width=60, seed=0) -> bytes:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", rgb)[1].tobytes()


def about(**changes) -> Description:
    return Description(
        **{
            "name": "tiny",
            "version": "1.2.3",
            "text": "A tiny set.",
            "box_rule": "head",
            "label_names": ("head",),
            "homepage": "https://example.org",
            "citation": "@misc{tiny}",
            "licence": "CC0",
            **changes,
        }
    )


def tiny_record(number: int) -> dict:
    count = number % 3
    boxes = np.tile(np.array([[1, 2, 30, 30]], np.float32), (count, 1))
    return {
        "image": jpeg(seed=number),
        "image_id": f"picture {number}",
        "source": "tiny",
        "boxes": boxes,
        "rotations": np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
        "has_pose": np.zeros(count, bool),
        "ignore": np.zeros(count, bool),
        "labels": np.zeros(count, np.int32),
    }


def read_tiny(number: int, report: Report):
    yield tiny_record(number)


def tiny(splits=None, read=read_tiny) -> Conversion:
    return Conversion(about(), splits or {"train": range(6), "test": range(6, 9)}, read)


# --- builder -------------------------------------------------------------------------------------


def test_tensorflow_is_not_imported(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_data_prep import tiny, write_record_set, RecordSource\n"
        f"write_record_set(tiny(), {str(tmp_path / 'out')!r})\n"
        f"print(len(RecordSource({str(tmp_path / 'out')!r}, 'train')), 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["6", "False"]


def test_every_record_arrives(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        source = RecordSource(tmp_path / "out", split, picture=False)
        found = {source[i]["image_id"]: source[i] for i in range(len(source))}
        assert len(found) == len(numbers)
        for number in numbers:
            expected = tiny_record(number)
            record = found[expected["image_id"]]
            for key, value in expected.items():
                np.testing.assert_array_equal(record[key], value)


def test_tfds_reads_the_metadata(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    info = tfds.builder_from_directory(tmp_path / "out").info
    assert (info.name, str(info.version)) == ("tiny", "1.2.3")
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 6,
        "test": 3,
    }
    assert info.citation == "@misc{tiny}"
    assert info.features["boxes"].shape == (None, 4)
    assert (tmp_path / "out" / "LICENSE").read_text().strip() == "CC0"
    opened = RecordSet.open(tmp_path / "out")
    assert (opened.box_rule, opened.label_names) == ("head", ("head",))


def test_converting_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_record_set(tiny(), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_spilling_to_disk_gives_the_same_records(tmp_path, monkeypatch):
    """tfds spills to files above 1 GB, through TensorFlow unless told otherwise."""
    write_record_set(tiny(), tmp_path / "memory")
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 5000)
    write_record_set(tiny(), tmp_path / "disk")
    name = "tiny-train.tfrecord-00000-of-00001"
    assert (tmp_path / "memory" / name).read_bytes() == (tmp_path / "disk" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "memory"]


def test_spilling_opens_more_files_than_the_limit_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 5000)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
    record = tiny_record(0)

    def read(number, report):
        yield {**record, "image_id": str(number)}

    try:
        write_record_set(tiny({"train": range(300)}, read), tmp_path / "out")
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 128
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(RecordSource(tmp_path / "out", "train")) == 300


def test_refuses_to_overwrite(tmp_path):
    out = tmp_path / "out"
    write_record_set(tiny(), out)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_record_set(tiny(), out)
    write_record_set(tiny({"train": range(2)}), out, overwrite=True)
    assert RecordSet.open(out).splits == {"train": 2}


def test_overwrite_leaves_other_folders_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="not a record set"):
        write_record_set(tiny(), tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "me.jpg").read_bytes() == b"precious"


def test_a_failed_conversion_leaves_nothing(tmp_path):
    def read(number, report):
        if number == 4:
            raise ValueError("picture 4 is bad")
        yield tiny_record(number)

    with pytest.raises(ValueError, match="picture 4 is bad"):
        write_record_set(tiny(read=read), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_conversion_keeps_the_old_set(tmp_path):
    write_record_set(tiny(), tmp_path / "out")
    with pytest.raises(ValueError, match="no pictures"):
        write_record_set(tiny({"train": []}), tmp_path / "out", overwrite=True)
    assert RecordSet.open(tmp_path / "out").splits == {"train": 6, "test": 3}


def test_same_id_twice_is_refused(tmp_path):
    conversion = tiny({"train": [1, 2], "test": [2]})
    with pytest.raises(ValueError, match="image_id 'picture 2'"):
        write_record_set(conversion, tmp_path / "out")


def test_bad_record_is_refused(tmp_path):
    def read(number, report):
        yield {**tiny_record(number), "labels": np.zeros(9, np.int32)}

    with pytest.raises(ValueError, match="field 'labels'"):
        write_record_set(tiny(read=read), tmp_path / "out")


# --- Pointing'04 -------------------------------------------------------------------------------


def plain_pointing04(raw: Path) -> dict[str, tuple]:
    """Name -> (tilt, pan, x, y, width, height), read line by line."""
    result = {}
    for path in raw.glob("Person*/*.txt"):
        tilt, pan = re.findall(r"[+-]\d+", path.stem)
        lines = path.read_text().splitlines()
        result[path.stem] = (int(tilt), int(pan), *(int(line) for line in lines[3:7]))
    return result


@pytest.fixture(scope="module")
def raw_pointing04(data_dir) -> Path:
    raw = data_dir / "pointing04"
    if not raw.is_dir():
        pytest.skip(f"no Pointing'04 at {raw}")
    return raw


def write_shot(raw: Path, name="person01146+0+0", face="Face", numbers=(30, 20, 10, 12)) -> Path:
    folder = raw / "Person01"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jpg").write_bytes(jpeg())
    values = "\n".join(str(n) for n in numbers)
    (folder / f"{name}.txt").write_text(f"{name}.jpg\n\n{face}\n{values}\n")
    return folder / f"{name}.jpg"


def test_pointing04_agrees_with_the_files(raw_pointing04):
    shots = pointing04.read_shots(raw_pointing04)
    plain = plain_pointing04(raw_pointing04)
    assert len(shots) == len(plain)
    for shot in shots:
        assert (shot.tilt, shot.pan, *shot.face) == plain[shot.path.stem]
        assert shot.path.parent.name == f"Person{shot.person:02d}"
    poses = {(shot.tilt, shot.pan) for shot in shots}
    assert len(poses) == 93  # 7 tilts x 13 pans, and straight up and down


def test_pointing04_converts_by_person(raw_pointing04, tmp_path):
    plain = plain_pointing04(raw_pointing04)
    conversion = pointing04.conversion(
        raw_pointing04, box_rule="face", persons=(1, 3), test_persons=(3,), every=13
    )
    write_record_set(conversion, tmp_path / "out")
    names = {}
    for split in ("train", "test"):
        source = RecordSource(tmp_path / "out", split)
        for i in range(len(source)):
            record = source[i]
            names.setdefault(split, set()).add(record["image_id"][:8])
            tilt, pan, x, y, w, h = plain[record["image_id"]]
            expected = Rotation.from_euler("YX", [pan, -tilt], degrees=True).as_matrix()
            np.testing.assert_allclose(record["rotations"][0], expected, atol=1e-6)
            box = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, [384, 288, 384, 288])
            np.testing.assert_array_equal(record["boxes"][0], box)
            assert record["image"].shape == (288, 384, 3)
            assert record["has_pose"].all()
            assert not record["ignore"].any()
    assert names == {"train": {"person01"}, "test": {"person03"}}
    assert RecordSet.open(tmp_path / "out").box_rule == "face"


def test_pointing04_poses_in_words():
    def face_normal(pan, tilt):  # x right, y down, z into the scene
        return -pointing04.rotation(pan, tilt)[:, 2]

    np.testing.assert_allclose(face_normal(0, 0), [0, 0, -1], atol=1e-9)  # into the camera
    np.testing.assert_allclose(face_normal(90, 0), [-1, 0, 0], atol=1e-9)  # left of the picture
    np.testing.assert_allclose(face_normal(0, 90), [0, -1, 0], atol=1e-9)  # up
    half = np.sqrt(0.5)
    # A profile that looks up keeps its face in the plane of the picture.
    np.testing.assert_allclose(face_normal(90, 45), [-half, -half, 0], atol=1e-9)
    # The line from ear to ear stays level for every pan and tilt.
    for pan, tilt in ((30, 60), (-75, -30), (90, 45)):
        assert abs(pointing04.rotation(pan, tilt)[1, 0]) < 1e-12


def test_head_box_by_hand():
    shot = pointing04.Shot(Path("x.jpg"), 1, 1, 46, 0.0, 0.0, (200, 150, 90, 100))
    box = pointing04.head_box(shot, 100.0)
    np.testing.assert_allclose(box, [200 - 80, 150 - 122, 200 + 80, 150 + 66])
    profile = pointing04.Shot(Path("x.jpg"), 1, 1, 46, 0.0, 90.0, (200, 150, 90, 100))
    box = pointing04.head_box(profile, 100.0)
    np.testing.assert_allclose(box, [200 + 60 - 96, 28, 200 + 60 + 96, 216])
    up = pointing04.Shot(Path("x.jpg"), 1, 1, 46, 30.0, 0.0, (200, 150, 90, 100))
    box = pointing04.head_box(up, 100.0)
    half = 80 * (1 - 0.13 / 2)
    np.testing.assert_allclose(box, [200 - half, 150 - 97, 200 + half, 150 + 72])


def test_head_box_mirrors_with_the_picture():
    for pan, tilt in ((45, 30), (75, -60)):
        left = pointing04.Shot(Path("x.jpg"), 1, 1, 1, tilt, pan, (200, 150, 90, 100))
        right = pointing04.Shot(Path("x.jpg"), 1, 1, 1, tilt, -pan, (384 - 200, 150, 90, 100))
        x1, y1, x2, y2 = pointing04.head_box(left, 90.0)
        np.testing.assert_allclose(pointing04.head_box(right, 90.0), [384 - x2, y1, 384 - x1, y2])


# Boxes of the whole head, hair to chin and both ears, drawn by eye on enlarged pictures.
HAND_DRAWN = {
    "person01146+0+0": (60, 0, 219, 213),
    "person03259+15+0": (76, 25, 238, 227),
    "person04152+0+90": (33, 24, 241, 239),
    "person07117-30-45": (121, 11, 309, 253),
    "person09263+15+60": (61, 0, 259, 212),
    "person10135-15+30": (122, 5, 312, 222),
    "person11144+0-30": (93, 0, 272, 215),
    "person12167+30-75": (76, 0, 277, 170),
    "person04186+60+15": (80, 15, 264, 178),
    "person05242+0-60": (67, 0, 248, 198),
    "person06275+30+45": (96, 0, 273, 120),
    "person08105-60-30": (74, 19, 298, 258),
    "person09127-15-90": (105, 15, 320, 241),
    "person10279+60-90": (39, 22, 245, 165),
    "person11225-30+75": (4, 18, 200, 240),
    "person12246+0+0": (94, 12, 244, 208),
}


def test_head_boxes_agree_with_boxes_drawn_by_hand(raw_pointing04):
    shots = pointing04.read_shots(raw_pointing04)
    sizes = pointing04.face_sizes(shots)
    overlaps = []
    for shot in shots:
        if shot.path.stem in HAND_DRAWN:
            box = pointing04.head_box(shot, sizes[shot.person, shot.series])
            box = np.clip(box, 0, [384, 288, 384, 288])
            overlaps.append(float(iou_xyxy(box, np.array(HAND_DRAWN[shot.path.stem], float))))
            assert overlaps[-1] > 0.75, shot.path.stem  # hair differs from person to person
    assert len(overlaps) == len(HAND_DRAWN)
    assert np.mean(overlaps) > 0.83


def test_face_sizes_are_the_median_of_upright_poses(raw_pointing04):
    sizes = pointing04.face_sizes(pointing04.read_shots(raw_pointing04))
    heights = [
        values[5]
        for name, values in plain_pointing04(raw_pointing04).items()
        if name.startswith("person071") and abs(values[0]) <= 30
    ]
    assert sizes[7, 1] == np.median(heights)
    assert len(sizes) == 24


def test_face_size_of_a_series_without_upright_poses(tmp_path):
    write_shot(tmp_path, "person01100-90+0", numbers=(30, 20, 10, 6))
    assert pointing04.face_sizes(pointing04.read_shots(tmp_path)) == {(1, 1): 10.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "holiday"}, r"holiday\.jpg: the name is not personNNSVV"),
        ({"face": "Nose"}, "is not the face box of"),
        ({"numbers": (1, 2, 3)}, "four numbers"),
        ({"numbers": (1, 2, 3, "x")}, "four numbers"),
        ({"numbers": (1, 2, 0, 4)}, "is not the face box of"),
    ],
)
def test_pointing04_bad_files_are_named(tmp_path, change, message):
    path = write_shot(tmp_path, **change)
    with pytest.raises(ValueError, match=message) as caught:
        pointing04.read_shots(tmp_path)
    assert path.stem in str(caught.value)


def test_pointing04_missing_txt_picture_or_person(tmp_path):
    with pytest.raises(FileNotFoundError, match="--raw must hold the folders Person01"):
        pointing04.read_shots(tmp_path)
    path = write_shot(tmp_path)
    with pytest.raises(ValueError, match=r"No pictures of person 7.*\[1\]"):
        pointing04.conversion(tmp_path, persons=(7,))
    with pytest.raises(ValueError, match="choose one of head, face"):
        pointing04.conversion(tmp_path, box_rule="hat")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=rf"cut short.*: {re.escape(str(path))}"):
        write_record_set(pointing04.conversion(tmp_path), tmp_path / "out")
    path.with_suffix(".txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"46\+0\+0\.txt is missing"):
        pointing04.read_shots(tmp_path)


def test_demo_records_hold_what_their_readme_says():
    opened = RecordSet.open(REPOSITORY / "demo" / "pointing04_demo")
    assert opened.splits == {"train": 124, "test": 62}
    assert opened.box_rule == "head"
    assert "Gourier" in opened.citation
    persons = {}
    for split in opened.splits:
        source = RecordSource(opened.path, split)
        records = [source[i] for i in range(len(source))]
        persons[split] = {record["image_id"][:8] for record in records}
        for record in records:
            assert record["image"].shape == (288, 384, 3)
            tilt, pan = (float(n) for n in re.findall(r"[+-]\d+", record["image_id"]))
            expected = pointing04.rotation(pan, tilt)[None].astype(np.float32)
            assert geodesic_degrees(record["rotations"], expected).max() < 1e-3
    assert persons == {"train": {"person01", "person02"}, "test": {"person03"}}


# --- YOLO ----------------------------------------------------------------------------------------


@pytest.fixture
def raw_yolo(tmp_path):
    """Two splits; `add(split, name, labels)` adds a picture of 60x40 (labels None: no file)."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "data.yaml").write_text("names: ['head', 'helmet']\nroboflow:\n  license: CC0\n")

    def add(split: str, name: str, labels: str | None) -> None:
        for folder in ("images", "labels"):
            (raw / split / folder).mkdir(parents=True, exist_ok=True)
        (raw / split / "images" / f"{name}.jpg").write_bytes(jpeg(seed=len(name)))
        if labels is not None:
            (raw / split / "labels" / f"{name}.txt").write_text(labels)

    add.raw = raw
    add("train", "one", "0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.1 0.2\n\n")
    add("train", "empty", "")
    add("train", "unlabelled", None)
    add("valid", "four", "1 0.5 0.5 1 1")
    return add


def convert_yolo(raw: Path, out: Path, **options) -> tuple[Report, dict[str, dict]]:
    report = write_record_set(yolo.conversion(raw, name="own", **options), out)
    records = {}
    for split in RecordSet.open(out).splits:
        source = RecordSource(out, split)
        records.update({source[i]["image_id"]: source[i] for i in range(len(source))})
    return report, records


def test_yolo_boxes_labels_and_pictures_without_heads(raw_yolo, tmp_path):
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "out")
    assert set(records) == {"train/one", "train/empty", "train/unlabelled", "valid/four"}
    one = records["train/one"]
    np.testing.assert_allclose(one["boxes"], [[15, 10, 45, 30], [12, 6, 18, 14]], rtol=1e-6)
    assert one["labels"].tolist() == [0, 1]
    assert not one["has_pose"].any()
    np.testing.assert_array_equal(one["rotations"], np.tile(np.eye(3), (2, 1, 1)))
    np.testing.assert_array_equal(records["valid/four"]["boxes"], [[0, 0, 60, 40]])
    for name in ("train/empty", "train/unlabelled"):
        assert records[name]["boxes"].shape == (0, 4)
        assert records[name]["image"].shape == (40, 60, 3)
    opened = RecordSet.open(tmp_path / "out")
    assert opened.label_names == ("head", "helmet")
    assert opened.splits == {"train": 3, "valid": 1}
    assert report.notes == {"pictures without a label file (kept, no heads)": ["train/unlabelled"]}


def test_yolo_label_map_joins_and_drops(raw_yolo, tmp_path):
    _, records = convert_yolo(
        raw_yolo.raw, tmp_path / "a", label_map={"head": "head", "helmet": "head"}
    )
    assert records["train/one"]["labels"].tolist() == [0, 0]
    assert RecordSet.open(tmp_path / "a").label_names == ("head",)
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "b", label_map={"helmet": "hat"})
    assert records["train/one"]["labels"].tolist() == [0]
    assert RecordSet.open(tmp_path / "b").label_names == ("hat",)
    assert report.dropped_heads == {"label 'head' is not in the label map": ["train/one"]}
    with pytest.raises(ValueError, match=r"names 'hat', but .* has head, helmet"):
        yolo.conversion(raw_yolo.raw, name="own", label_map={"hat": "head"})


def test_yolo_clips_and_drops_with_counts(raw_yolo, tmp_path):
    labels = "0 0 0 0.5 0.5\n0 1.5 0.5 0.2 0.2\n0 0.5 0.5 0 0.3\n0 0.5 0.5 0.1 -0.1\n"
    raw_yolo("train", "edge", labels)
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "out")
    np.testing.assert_array_equal(records["train/edge"]["boxes"], [[0, 0, 15, 10]])
    assert report.dropped_heads == {
        "box is outside the picture": ["train/edge"],
        "box has no area": ["train/edge"] * 2,
    }
    assert report.notes["boxes clipped to the picture"] == ["train/edge"]
    text = (tmp_path / "out" / "conversion.txt").read_text()
    assert "dropped heads: 3" in text
    assert "2 box has no area: train/edge" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "4 numbers, expected 5.*not complete"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", "polygons are not supported"),
        ("head 0.5 0.5 0.5 0.5", "expected an integer class and four numbers"),
        ("0 0.5 x 0.5 0.5", "expected an integer class and four numbers"),
        ("2 0.5 0.5 0.5 0.5", "class 2, but data.yaml names 2 classes: 0 to 1"),
        ("-1 0.5 0.5 0.5 0.5", "class -1"),
        ("0 nan 0.5 0.5 0.5", "must be finite"),
        ("0 30 20 10 10", "look like pixels: divide"),
    ],
)
def test_yolo_malformed_line_is_named(raw_yolo, tmp_path, line, message):
    raw_yolo("valid", "bad", f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(ValueError, match=message) as caught:
        convert_yolo(raw_yolo.raw, tmp_path / "out")
    assert "bad.txt, line 2: " in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: ['head', 'helmet']", ["head", "helmet"]),
        ("names:\n- head\n- helmet\n", ["head", "helmet"]),
        ("names:\n  0: head\n  1: helmet\n", ["head", "helmet"]),
        ("names: [1, 2]", ["1", "2"]),
    ],
)
def test_yolo_names(tmp_path, text, names):
    (tmp_path / "data.yaml").write_text(text)
    assert yolo.read_names(tmp_path / "data.yaml") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2", "no usable 'names'"),
        ("names: {1: head}", "no usable 'names'"),
        ("names: []", "no usable 'names'"),
        ("names: [", "not valid YAML"),
        ("just words", "no usable 'names'"),
    ],
)
def test_yolo_bad_names(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        yolo.read_names(tmp_path / "data.yaml")


def test_yolo_missing_parts(raw_yolo, tmp_path):
    with pytest.raises(FileNotFoundError, match="write one with a line such as names"):
        yolo.conversion(tmp_path, name="own")
    with pytest.raises(FileNotFoundError, match=r"No pictures .* for split 'night'"):
        yolo.conversion(raw_yolo.raw, name="own", splits=("night",))
    (tmp_path / "data.yaml").write_text("names: [head]")
    with pytest.raises(FileNotFoundError, match="No SPLIT/images folder"):
        yolo.conversion(tmp_path, name="own", splits=())
    (raw_yolo.raw / "valid" / "images" / "four.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"OpenCV cannot decode.*four\.jpg"):
        convert_yolo(raw_yolo.raw, tmp_path / "out")


def test_damaged_pictures_are_left_out_and_named(raw_yolo, tmp_path):
    one = raw_yolo.raw / "train" / "images" / "one.jpg"
    one.write_bytes(one.read_bytes()[:-400])
    (raw_yolo.raw / "train" / "images" / "empty.jpg").write_bytes(b"")
    report, records = convert_yolo(raw_yolo.raw, tmp_path / "out")
    assert sorted(records) == ["train/unlabelled", "valid/four"]
    places = [place for found in report.dropped_pictures.values() for place in found]
    assert sorted(Path(place).name for place in places) == ["empty.jpg", "one.jpg"]
    assert "dropped pictures: 2" in report.text()


def test_hardhat_agrees_with_the_files(data_dir, tmp_path):
    raw = data_dir / "hardhat"
    if not raw.is_dir():
        pytest.skip(f"no Hard Hat at {raw}")
    _, records = convert_yolo(raw, tmp_path / "out", splits=("valid",))
    paths = sorted((raw / "valid" / "labels").glob("*.txt"))
    assert len(records) == len(paths)
    for path in paths:
        rows = np.loadtxt(path, ndmin=2).reshape(-1, 5)
        record = records[f"valid/{path.stem}"]
        height, width = record["image"].shape[:2]
        assert record["labels"].tolist() == rows[:, 0].tolist()
        x, y, w, h = (rows[:, 1:] * [width, height, width, height]).T
        expected = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
        np.testing.assert_allclose(record["boxes"], expected.reshape(-1, 4), atol=0.51)


# --- report and command --------------------------------------------------------------------------


def test_report_counts_and_histograms(tmp_path):
    def read(number, report):
        record = tiny_record(number)
        if number % 3 == 2:
            yaw = Rotation.from_euler("Y", 40, degrees=True).as_matrix()
            record["rotations"] = np.stack([yaw, np.eye(3)]).astype(np.float32)
            record["has_pose"] = np.array([True, False])
            record["ignore"] = np.array([False, True])
        if number != 3:
            yield record

    write_record_set(tiny(read=read), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    train = report["splits"]["train"]
    assert train == {
        "pictures": 5,
        "pictures without heads": 1,
        "heads": 6,
        "heads with a pose": 2,
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


def command(*words: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    return convert.run(parser.parse_args(words))


def test_command_converts_and_reports(raw_yolo, tmp_path, capsys):
    words = ["yolo", "--raw", str(raw_yolo.raw), "--out", str(tmp_path / "sets" / "mine")]
    assert command(*words, "--label-map", "head=head,helmet=head", "--splits", "valid") == 0
    out = capsys.readouterr().out
    assert "mine 1.0.0, box rule 'head'" in out
    assert "valid: 1 pictures" in out
    assert RecordSet.open(tmp_path / "sets" / "mine").label_names == ("head",)
    assert command(*words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert command(*words, "--overwrite") == 0


def test_command_starts_without_tensorflow_datasets():
    code = "import sys, data_prep.convert; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_command_errors_are_one_line(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert command("pointing04", "--raw", str(tmp_path / "no"), "--out", out) == 1
    assert command("pointing04", "--raw", str(tmp_path), "--out", out) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("mtnet data convert pointing04: ") for line in lines)
    with pytest.raises(SystemExit):
        command("yolo", "--raw", "a", "--out", "b", "--label-map", "nonsense")
    with pytest.raises(SystemExit):
        command("pointing04", "--raw", "a", "--out", "b", "--every", "0")
