"""Predictions of other programs: what is read, how images are matched, what is refused."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.errors import BadInput, MissingFile
from mtnet_jax.evaluation.foreign import read_predictions

BOX = [10.0, 20.0, 50.0, 80.0]


def written(tmp_path, content):
    path = tmp_path / "peer.json"
    path.write_text(json.dumps(content))
    return path


def one(*heads, image="a.jpg", **about):
    return {**about, "images": [{"image": image, "heads": list(heads)}]}


def test_rotations_are_taken_as_they_stand_and_scores_default_to_one(tmp_path):
    turn = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    content = one(
        {"box": BOX, "rotation": turn.tolist(), "yaw": 1, "pitch": 2, "roll": 3},
        {"box": BOX, "score": 0.25},
    )
    read = read_predictions(written(tmp_path, content))
    (heads,) = read.of_images(["a"])
    np.testing.assert_array_equal(heads["rotations"][0], turn)
    assert np.isnan(heads["rotations"][1]).all()
    assert heads["scores"].tolist() == [1, 0.25]
    assert heads["boxes"].tolist() == [BOX, BOX]
    assert (read.frame, read.class_names) == ("camera", ("head",))


@pytest.mark.parametrize(
    ("convention", "axes", "signs"),
    [("canonical", "XYZ", (-1, 1, 1)), ("opal", "XYZ", (-1, -1, 1)), ("sixdrepnet", "ZYX", None)],
)
def test_angles_are_those_of_the_named_convention(tmp_path, convention, axes, signs):
    """SciPy's intrinsic turns, in the order and with the signs that docs/conventions.md says."""
    yaw, pitch, roll = 130.0, -20.0, 35.0
    content = one(
        {"box": BOX, "yaw": yaw, "pitch": pitch, "roll": roll}, convention=convention, frame="ray"
    )
    read = read_predictions(written(tmp_path, content))
    angles = (roll, yaw, pitch) if signs is None else np.array([pitch, yaw, roll]) * signs
    expected = Rotation.from_euler(axes, angles, degrees=True).as_matrix()
    np.testing.assert_allclose(read.of_images(["a"])[0]["rotations"][0], expected, atol=1e-12)
    assert read.frame == "ray"


@pytest.mark.parametrize(("yaw", "warned"), [(1.2, True), (68.0, False), (0, False)])
def test_angles_that_look_like_radians_draw_a_warning(tmp_path, yaw, warned):
    content = one(
        {"box": BOX, "yaw": yaw, "pitch": 0.3 if yaw else 0, "roll": 0},
        {"box": BOX, "rotation": np.eye(3).tolist()},
        convention="canonical",
    )
    assert ("radians" in read_predictions(written(tmp_path, content)).warning) == warned


@pytest.mark.parametrize("digits", [2, 3])
def test_rotations_of_few_digits_become_the_rotations_that_they_round(tmp_path, digits):
    turns = Rotation.random(30, rng=0).as_matrix()
    heads = [{"box": BOX, "rotation": turn.round(digits).tolist()} for turn in turns]
    (found,) = read_predictions(written(tmp_path, one(*heads))).of_images(["a"])
    read = Rotation.from_matrix(found["rotations"])
    np.testing.assert_allclose(read.as_matrix(), found["rotations"], atol=1e-3)
    off = (read * Rotation.from_matrix(turns).inv()).magnitude()
    assert np.rad2deg(off).max() < 60 * 10.0**-digits  # half a digit in each of nine numbers


def test_images_of_another_size_than_that_of_the_records_are_refused(tmp_path):
    content = [{"image": "a.jpg", "width": 640, "height": 480, "heads": [{"box": BOX}]}]
    read = read_predictions(written(tmp_path, content))
    assert read.of_images(["a"], [(640, 480)]) == read.of_images(["a"])
    with pytest.raises(
        BadInput, match=r"a.jpg: its boxes are of \(640, 480\) pixels.*\(480, 640\)"
    ):
        read.of_images(["a"], [(480, 640)])


def test_the_list_of_mtnet_predict_is_read(tmp_path, predictor):
    from mtnet_jax.predict.files import predict_files
    from mtnet_jax.shipped import shipped

    photos = sorted(shipped("demo/images").glob("*.jpg"))[:2]
    predict_files(predictor, photos, out=None, json_file=tmp_path / "own.json")
    read = read_predictions(tmp_path / "own.json")
    found = read.of_images([photo.stem for photo in photos])
    for photo, heads in zip(photos, found, strict=True):
        expected = predictor(str(photo))
        assert len(heads["boxes"]) == len(expected) > 0
        np.testing.assert_allclose(heads["boxes"], [h.box for h in expected], atol=0.006)
        np.testing.assert_allclose(heads["rotations"], [h.rotation for h in expected], atol=1e-6)


def test_images_are_matched_by_their_whole_name_or_by_a_last_part_that_is_unique(tmp_path):
    names = ["in/a/1.jpg", "in/b/1.png", "elsewhere\\2.JPG", "frame.0003"]
    content = [{"image": n, "heads": [{"box": BOX, "score": i / 4}]} for i, n in enumerate(names)]
    read = read_predictions(written(tmp_path, content))
    ids = ["in/b/1", "in/a/1.jpg", "set/2.jpg", "frame.0003"]
    assert [4 * h["scores"].item() for h in read.of_images(ids)] == [1, 0, 2, 3]
    with pytest.raises(BadInput, match=r"says nothing of 1 of 2 images: other/1\.") as error:
        read.of_images(["other/1", "set/2"])  # two images end in 1
    assert '"heads": []' in str(error.value)
    with pytest.raises(BadInput, match="nothing of 2 of 2"):
        read.of_images(["x/2", "y/2"])


def test_names_that_differ_in_their_endings_alone_are_two(tmp_path):
    names = ["a.png", "a.bmp", "b.jpg", "b.bmp.png"]  # the last as `mtnet data images` may write it
    content = [{"image": n, "heads": [{"box": BOX, "score": i / 4}]} for i, n in enumerate(names)]
    read = read_predictions(written(tmp_path, content))
    ids = ["a.bmp", "a.png", "b.bmp", "b.jpg"]
    assert [4 * h["scores"].item() for h in read.of_images(ids)] == [1, 0, 3, 2]
    with pytest.raises(BadInput, match="nothing of 1 of 1 images: a"):
        read.of_images(["a"])


@pytest.mark.parametrize(
    ("label", "records", "classes", "expected"),
    [
        ({"label": "hat"}, ("face", "hat"), ("face", "hat"), [1]),
        ({"label": "head"}, ("face", "hat"), ("head",), [0]),  # another word for all of them
        ({}, ("head", "hat"), ("head",), [0]),
        ({"label": "hat"}, ("hat",), ("hat",), [0]),
    ],
)
def test_labels_of_the_records_are_their_classes(tmp_path, label, records, classes, expected):
    read = read_predictions(written(tmp_path, one({"box": BOX, **label}))).among(records)
    assert read.class_names == classes
    assert read.of_images(["a"])[0]["labels"].tolist() == expected


def test_a_label_of_the_records_that_no_head_has_is_a_class_too(tmp_path):
    content = one({"box": BOX, "label": "hat"}, {"box": BOX, "label": "cap"})
    read = read_predictions(written(tmp_path, content))
    known = read.among(("hat", "bare", "cap"))
    assert known.class_names == ("hat", "bare", "cap")
    assert known.of_images(["a"])[0]["labels"].tolist() == [0, 2]
    assert read.among(("hat", "bare")) is read  # one of its labels is unknown: that is said later


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"heads": []}, "no list of images"),
        ([{"heads": []}], "entry 0 names no"),
        ([{"image": "a", "error": "damaged"}], 'image a: "heads" is no list of heads'),
        (one({"box": BOX}, convention=["canonical"]), r"convention \['canonical'\] is no name"),
        (one({"box": BOX, "frame": ["ray"]}), r"frame \['ray'\] is no name"),
        (one({"box": BOX, "label": {}}), "label {} is no name"),
        (one({"box": [1, 2, 3]}), r"image a.jpg, head 0: box \[1, 2, 3\] is not 4 finite numbers"),
        (one({"box": BOX}, {"box": [5, 5, 2, 9]}), "head 1: box .* is not left, top"),
        (one({"box": [0, 0, 9, 10**400]}), "box .* is not 4 finite numbers"),
        (one({"box": BOX, "score": "high"}), "score 'high' is not a finite number"),
        (one({"box": BOX, "score": 93}), "score 93 is not from 0 to 1"),
        (one({"box": BOX, "score": -0.5}), "score -0.5 is not from 0 to 1"),
        (one({"box": [0.2, 0.1, 0.4, 0.5]}), "looks like parts of the image"),
        (one({"box": BOX, "rotation": np.zeros((3, 3)).tolist()}), "is not a rotation: its rows"),
        (one({"box": BOX, "rotation": (2 * np.eye(3)).tolist()}), "is not a rotation: its rows"),
        (one({"box": BOX, "rotation": np.diag([1, 1, -1]).tolist()}), "rotation.*a mirror image"),
        (one({"box": BOX, "yaw": 3, "pitch": 1, "roll": 1}), "names no convention"),
        (one({"box": BOX, "yaw": 3}, convention="canonical"), "pitch None is not a finite"),
        (one({"box": BOX}, convention="euler"), "convention 'euler': choose one of"),
        (one({"box": BOX, "frame": "ray"}, frame="camera"), "frame 'camera', 'ray'"),
        (one({"box": BOX, "rotation": [[1, 0], [0, 1]]}), "rotation .* is not 9 finite"),
        ([{"image": n, "heads": []} for n in ("a.png", "a.png")], "names the image a.png twice"),
        (
            one({"box": BOX, "label": "head"}, {"box": BOX, "label": "hat"}, {"box": BOX}),
            "no label",
        ),
    ],
)
def test_what_cannot_be_understood_is_named(tmp_path, content, words):
    with pytest.raises(BadInput, match=words):
        read_predictions(written(tmp_path, content))


def test_no_file_and_no_json_are_said(tmp_path):
    with pytest.raises(MissingFile, match="No predictions at"):
        read_predictions(tmp_path / "none.json")
    path = tmp_path / "cut.json"
    for content in (b"[{", b"[" * 100_000, b"\xff\xfe["):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="is not valid JSON"):
            read_predictions(path)
