"""The Pointing'04 converter: poses, boxes, splits, damaged files."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.engine.builder import write_record_set
from data_prep.sets import pointing04
from mtnet_jax.boxes import iou_xyxy
from mtnet_jax.data.records import RecordSet, RecordSource
from tests.conversions import jpeg

REPOSITORY = Path(__file__).resolve().parent.parent


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
            expected = Rotation.from_euler("YX", [pan, -0.55 * tilt], degrees=True).as_matrix()
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
        return -pointing04.rotation(pan, tilt, 1.0)[:, 2]

    np.testing.assert_allclose(face_normal(0, 0), [0, 0, -1], atol=1e-9)  # into the camera
    np.testing.assert_allclose(face_normal(90, 0), [-1, 0, 0], atol=1e-9)  # left of the image
    np.testing.assert_allclose(face_normal(0, 90), [0, -1, 0], atol=1e-9)  # up
    half = np.sqrt(0.5)
    # A profile that looks up keeps its face in the plane of the image.
    np.testing.assert_allclose(face_normal(90, 45), [-half, -half, 0], atol=1e-9)
    # The line from ear to ear stays level for every pan and tilt.
    for pan, tilt in ((30, 60), (-75, -30), (90, 45)):
        assert abs(pointing04.rotation(pan, tilt)[1, 0]) < 1e-12


def test_published_tilts_on_request(raw_pointing04, tmp_path):
    conversion = pointing04.conversion(raw_pointing04, persons=(1,), every=31, tilt_share=1.0)
    write_record_set(conversion, tmp_path / "out")
    source, plain = RecordSource(tmp_path / "out", "train"), plain_pointing04(raw_pointing04)
    tilts = set()
    for i in range(len(source)):
        tilt, pan = plain[source[i]["image_id"]][:2]
        expected = Rotation.from_euler("YX", [pan, -tilt], degrees=True).as_matrix()
        np.testing.assert_allclose(source[i]["rotations"][0], expected, atol=1e-6)
        tilts.add(tilt)
    assert tilts - {0}
    with pytest.raises(ValueError, match="tilt-share"):
        pointing04.conversion(raw_pointing04, tilt_share=1.8)


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


def test_head_box_mirrors_with_the_image():
    for pan, tilt in ((45, 30), (75, -60)):
        left = pointing04.Shot(Path("x.jpg"), 1, 1, 1, tilt, pan, (200, 150, 90, 100))
        right = pointing04.Shot(Path("x.jpg"), 1, 1, 1, tilt, -pan, (384 - 200, 150, 90, 100))
        x1, y1, x2, y2 = pointing04.head_box(left, 90.0)
        np.testing.assert_allclose(pointing04.head_box(right, 90.0), [384 - x2, y1, 384 - x1, y2])


# Boxes of the whole head, hair to chin and both ears, drawn by eye on enlarged images.
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
        ({"numbers": (1, 2, "nan", 4)}, "is not the face box of"),
        ({"face": "\0"}, "line 3: holds zero bytes"),
        ({"numbers": (1, 2, 0, 4)}, "is not the face box of"),
    ],
)
def test_pointing04_bad_files_are_named(tmp_path, change, message):
    path = write_shot(tmp_path, **change)
    with pytest.raises(ValueError, match=message) as caught:
        pointing04.read_shots(tmp_path)
    assert path.stem in str(caught.value)


def test_an_image_whose_head_is_outside_is_dropped(tmp_path):
    write_shot(tmp_path, "person01146+0+0")
    write_shot(tmp_path, "person01147+0+0", numbers=(3000, 20, 10, 12))
    report = write_record_set(pointing04.conversion(tmp_path), tmp_path / "out")
    assert RecordSet.open(tmp_path / "out").splits == {"train": 1}
    assert report.dropped_images == {"its only head was dropped": ["person01147+0+0"]}


def test_images_in_capitals_count_and_files_of_a_mac_do_not(tmp_path):
    path = write_shot(tmp_path)
    path.rename(path.with_suffix(".JPG"))
    path.with_name("._person01146+0+0.jpg").write_bytes(b"of a Mac")
    (shot,) = pointing04.read_shots(tmp_path)
    assert shot.path == path.with_suffix(".JPG")


def test_pointing04_missing_txt_image_or_person(tmp_path):
    with pytest.raises(FileNotFoundError, match="--raw must hold the folders Person01"):
        pointing04.read_shots(tmp_path)
    path = write_shot(tmp_path)
    with pytest.raises(ValueError, match=r"No images of person 7.*\[1\]"):
        pointing04.conversion(tmp_path, persons=(7,))
    with pytest.raises(ValueError, match=r"No images of person 7.*\[1\]"):
        pointing04.conversion(tmp_path, test_persons=(1, 7))
    with pytest.raises(ValueError, match="choose one of head, face"):
        pointing04.conversion(tmp_path, box_rule="hat")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=rf"cut short.*: {re.escape(str(path))}"):
        write_record_set(pointing04.conversion(tmp_path), tmp_path / "out")
    path.with_suffix(".txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"46\+0\+0\.txt is missing"):
        pointing04.read_shots(tmp_path)
