"""Records of turned faces: which are turned, how far, and what is said of the others."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.engine.report import Report
from data_prep.own import turned_faces
from data_prep.own.turned_faces import chosen_turn
from mtnet_jax.data.images import decode_image
from mtnet_jax.errors import MtnetError
from mtnet_jax.rotations import axis_rotation, geodesic_degrees, heading_degrees
from tests.faces import BOX, SIZE, drawing, landmarks, mesh
from tests.record_sets import a_record, write_record_set

SPOTS = mesh()[[1]]  # the tip of the nose
EMPTY = '{"image": "a", "heads": []}'


def a_face(name: str, heading: float, **more) -> dict:
    """A record of a drawn face that looks so far to the side."""
    rotation = axis_rotation("y", heading)
    record = a_record(name, **{"boxes": [BOX], "rotations": [rotation], **more})
    record["image"] = cv2.imencode(".png", drawing(rotation, SPOTS)[..., ::-1])[1].tobytes()
    return record


def written(path: Path, faces: dict) -> Path:
    """A file of landmarks: name of an image -> heading of its face, or landmarks of its faces."""

    def of_image(value):
        found = value if isinstance(value, list) else [landmarks(axis_rotation("y", value))]
        return [{"box": BOX.tolist(), "landmarks": np.round(f, 2).tolist()} for f in found]

    entries = [{"image": name, "heads": of_image(value)} for name, value in faces.items()]
    path.write_text(json.dumps({"program": "mediapipe", "images": entries}))
    return path


def blue_spot(image: np.ndarray) -> np.ndarray:
    """The middle (x, y) of what is blue: JPEG keeps the colour of a spot but roughly."""
    rows, columns = np.nonzero(image[..., 2].astype(int) - image[..., 0] > 50)
    return np.array([columns.mean(), rows.mean()])


def turned(tmp_path, records, faces, **options):
    raw = write_record_set(tmp_path / "tiny", {"train": records})
    made = turned_faces.conversion(
        raw, written(tmp_path / "mesh.json", faces), name="mine", **options
    )
    report = Report(made.description)
    return [r for face in made.splits["train"] for r in made.read(face, report)], report


def test_a_face_looks_where_its_label_says(tmp_path):
    faces = {f"{number}.png": heading for number, heading in enumerate((-20, -8, 9, 15))}
    records, _ = turned(tmp_path, [a_face(n, h) for n, h in faces.items()], faces)
    assert len(records) == 4
    for record, heading in zip(records, faces.values(), strict=True):
        image = decode_image(record["image"])
        assert max(image.shape) <= 400
        (rotation,), (box,) = record["rotations"].astype(float), record["boxes"]
        turn = rotation @ axis_rotation("y", heading).T
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
        # The tip of the nose is in front of the middle between the ears, where the face looks.
        scale = image.shape[0] / SIZE[0]
        nose = (SPOTS[0] @ rotation.T + [200, 230, 0])[:2] * scale
        np.testing.assert_allclose(blue_spot(image), nose, atol=2)
        assert (box[:2] < nose).all()
        assert (nose < box[2:]).all()


def test_each_face_is_turned_in_as_many_ways_as_asked_for(tmp_path):
    once, _ = turned(tmp_path / "once", [a_face("0.png", 9)], {"0.png": 9})
    thrice, _ = turned(tmp_path / "thrice", [a_face("0.png", 9)], {"0.png": 9}, turns=3)
    assert [r["image_id"] for r in thrice] == ["0.png", "0.png_turn2", "0.png_turn3"]
    assert thrice[0]["image"] == once[0]["image"]
    headings = [float(heading_degrees(r["rotations"][0])) for r in thrice]
    downs = [float(r["rotations"][0][1, 2]) for r in thrice]
    assert len({(round(a, 1), round(b, 3)) for a, b in zip(headings, downs, strict=True)}) == 3


def test_turns_are_outward_or_up_and_down_and_always_the_same():
    base = axis_rotation("y", 10.0)
    headings, downs = [], []
    for number in range(400):
        rotation = chosen_turn(f"{number}", base) @ base
        np.testing.assert_array_equal(rotation, chosen_turn(f"{number}", base) @ base)
        headings.append(float(heading_degrees(rotation)))
        downs.append(float(np.degrees(np.arcsin(-rotation[1, 2]))))
    headings, downs = np.array(headings), np.abs(downs)
    assert headings.max() < 62  # 10, and 50 at most
    aside = headings > 25
    assert 0.5 < aside.mean() < 0.75
    assert (headings < -20).mean() < 0.01
    assert downs.max() < 41
    assert (downs[~aside] > 9).mean() > 0.7
    assert np.median(downs[aside]) < 9
    mirrored = axis_rotation("y", -10.0)
    others = [heading_degrees(chosen_turn(f"{n}", mirrored) @ mirrored) for n in range(400)]
    assert np.mean(np.array(others) < -25) > 0.5


def test_a_steep_head_is_turned_no_steeper():
    """Beyond what is steepest too."""
    for nod in (-55.0, 45.0):
        base = axis_rotation("x", nod)
        down = abs(np.degrees(np.arcsin(base[1, 2])))
        for number in range(100):
            turned_rotation = chosen_turn(f"{number}", base) @ base
            assert abs(np.degrees(np.arcsin(turned_rotation[1, 2]))) <= max(down, 40) + 1e-6


def test_splits_are_chosen_and_need_no_landmarks_of_others(tmp_path):
    records = {"train": [a_face("a", 0.0)], "test": [a_face("b", 0.0)]}
    raw = write_record_set(tmp_path / "tiny", records)
    mesh_file = written(tmp_path / "mesh.json", {"a": 0.0})
    made = turned_faces.conversion(raw, mesh_file, name="mine", splits=("train",))
    assert list(made.splits) == ["train"]
    with pytest.raises(MtnetError, match="has no split valid, but train, test"):
        turned_faces.conversion(raw, mesh_file, name="mine", splits=("valid",))


def test_a_face_is_small_that_would_be_so_in_what_is_written(tmp_path):
    record = a_face("far", 0.0)
    canvas = np.zeros((1600, 1600, 3), np.uint8)
    record["image"] = cv2.imencode(".png", canvas)[1].tobytes()
    face = landmarks(np.eye(3))
    little = face.mean(axis=0) + 0.4 * (face - face.mean(axis=0))  # 76 pixels long, then 19
    _, report = turned(tmp_path, [record], {"far": [little]})
    assert "1 images left out: its face is smaller than 24 pixels where" in report.text()


def test_landmarks_of_an_image_of_another_size_are_not_used(tmp_path):
    raw = write_record_set(tmp_path / "tiny", {"train": [a_face("a", 0.0)]})
    path = written(tmp_path / "mesh.json", {"a": 0.0})
    content = json.loads(path.read_text())
    content["images"][0] |= {"width": 2 * SIZE[1], "height": 2 * SIZE[0]}
    path.write_text(json.dumps(content))
    made = turned_faces.conversion(raw, path, name="mine")
    report = Report(made.description)
    assert not [r for face in made.splits["train"] for r in made.read(face, report)]
    assert "1 images left out: its landmarks are of an image of another size" in report.text()


def test_a_profile_is_turned_no_further_to_the_side():
    base = axis_rotation("y", 78.0)
    for number in range(100):
        turn = chosen_turn(f"{number}", base)
        assert geodesic_degrees(turn @ base, base) < 45
        assert abs(heading_degrees(turn @ base)) < 115


def test_what_is_left_out_is_counted(tmp_path):
    small = landmarks(np.eye(3)) * 0.05 + np.array([195, 225, 0], np.float32)
    beside = landmarks(np.eye(3)) + np.array([150, 0, 0], np.float32)
    both = [BOX, BOX / 2]
    faces = {
        "good": 5.0,
        "two": 0.0,
        "no pose": 0.0,
        "no face": [],
        "two faces": [landmarks(np.eye(3))] * 2,
        "small": [small],
        "beside": [beside],
        "ignored": 0.0,
    }
    records = [
        a_face("good", 5.0),
        a_face("two", 0.0, boxes=both, rotations=[np.eye(3)] * 2),
        a_face("no pose", 0.0, rotations=()),
        *(a_face(name, 0.0) for name in ("no face", "two faces", "small", "beside")),
        a_face("ignored", 0.0, ignore=[True]),
    ]
    found, report = turned(tmp_path, records, faces)
    assert [record["image_id"] for record in found] == ["good"]
    text = report.text()
    for count, reason in (
        (1, "not one head"),
        (2, "its head knows no rotation"),
        (2, "not one face with landmarks"),
        (1, "its face is smaller than 24 pixels"),
        (1, "its face lies beside the head"),
    ):
        assert f"{count} images left out: {reason}" in text, text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", 'has no "images"'),
        ('{"images": [{"image": "a"}]}', 'has no "images"'),
        ('{"images": [{"image": "a", "heads": [{"box": [1, 2, 3, 4]}]}]}', "image a, head 0"),
        ('{"images": [{"image": "a", "heads": [{"landmarks": [[1, 2, 3]]}]}]}', "468 times"),
        ('{"images": [{"image": "a", "heads": [{"landmarks": [[1], [2, 3]]}]}]}', "468 times"),
        ('{"images": []}', "says nothing of 1 of 1 images"),
        ('{"images": [{"image": 7, "heads": []}]}', "says nothing of 1 of 1 images"),
        (f'{{"images": [{", ".join(2 * [EMPTY])}]}}', "names the image a twice"),
    ],
)
def test_files_of_landmarks_that_are_none(tmp_path, content, said):
    raw = write_record_set(tmp_path / "tiny", {"train": [a_face("a", 0.0)]})
    (tmp_path / "mesh.json").write_text(content)
    with pytest.raises(MtnetError, match=said):
        turned_faces.conversion(raw, tmp_path / "mesh.json", name="mine")
    with pytest.raises(MtnetError, match="No landmarks at"):
        turned_faces.conversion(raw, tmp_path / "other.json", name="mine")
