"""Prediction of image files: how they are read, and what is written of them."""

import json
import os
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from mtnet_jax.errors import BadRecord, Unavailable
from mtnet_jax.outputs import Outputs
from mtnet_jax.predict.extras import write_crops, write_text
from mtnet_jax.predict.files import encode_image, find_images, predict_files
from mtnet_jax.predict.predictor import Head, read_image
from tests.image_files import noise_image, write_image, written


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A JPEG with a minimal EXIF segment that holds the orientation alone."""
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def test_exif_orientation_is_applied(tmp_path, predictor):
    """Orientation 6: the top of the scene lies on the right of the stored image."""
    scene = np.zeros((40, 20, 3), np.uint8)
    scene[:8, :8] = 255  # top left
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_orientation(jpeg(np.rot90(scene)), 6))
    image = read_image(path)
    assert image.shape == scene.shape
    assert np.abs(image.astype(int) - scene).mean() < 3

    predict_files(predictor, [path], out=tmp_path / "o", json_file=tmp_path / "heads.json")
    entry = json.loads((tmp_path / "heads.json").read_text())[0]
    assert (entry["width"], entry["height"]) == (20, 40)
    assert read_image(tmp_path / "o" / "turned.png").shape == scene.shape


def test_jpeg_with_data_after_its_end_is_read(tmp_path):
    """Phones append videos and thumbnails; bytes in there look like markers of the image."""
    image = np.full((40, 60, 3), 77, np.uint8)
    for trailer in (b"\xff\xda\0\0", b"\0\xff\xd9\xff\xda" * 3, b"\xff\xd8\xff\xe0"):
        path = tmp_path / "motion.jpg"
        path.write_bytes(jpeg(image) + trailer)
        np.testing.assert_allclose(read_image(path), image, atol=2)


def test_truncated_jpeg_is_refused_whatever_its_thumbnail_ends_with(tmp_path, rng):
    """The EXIF thumbnail is a whole JPEG inside the first bytes: its end marker is not the end."""
    thumbnail = jpeg(noise_image(rng, 16, 16))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    data = jpeg(noise_image(rng, 200, 150))
    data = data[:2] + segment + data[2:]
    path = tmp_path / "cut.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == (150, 200, 3)
    for share in (0.2, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(BadRecord, match=r"cut\.jpg: .*(cut short|cannot decode)"):
            read_image(path)


@pytest.mark.parametrize(
    "options", [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)]
)
def test_progressive_jpeg_and_restart_markers(tmp_path, rng, options):
    image = cv2.GaussianBlur(noise_image(rng, 200, 150), (0, 0), 3)
    data = cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    np.testing.assert_allclose(read_image(path), image, atol=20)
    for share in (0.5, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(BadRecord):
            read_image(path)


def test_grey_sixteen_bit_and_alpha_files(tmp_path, rng):
    grey = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    for name, data in {
        "grey.png": grey,
        "deep.png": grey.astype(np.uint16) * 257,
        "alpha.png": np.dstack([grey] * 4),
    }.items():
        path = tmp_path / name
        path.write_bytes(cv2.imencode(".png", data)[1].tobytes())
        np.testing.assert_array_equal(read_image(path), np.dstack([grey] * 3))


def test_a_file_is_predicted_like_its_array(tmp_path, rng, predictor):
    image = noise_image(rng, 60, 50)
    path = tmp_path / "Zürich – été 1.png"
    write_image(path, image)
    np.testing.assert_array_equal(read_image(path), image)
    expected = [h.to_json() for h in predictor(image)]
    assert [h.to_json() for h in predictor(path)] == expected
    assert [h.to_json() for h in predictor(str(path))] == expected


def test_files_that_are_no_images_are_named(tmp_path, predictor):
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    with pytest.raises(ValueError, match=r"notes\.jpg"):
        predictor(text)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        predictor(tmp_path / "nowhere.jpg")


def test_folders_give_their_images_sorted(tmp_path):
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "notes.txt", "clip.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "in" / "folder.png").mkdir()
    lone, missing = tmp_path / "other.xyz", tmp_path / "missing.jpg"
    lone.write_bytes(b"")
    found = find_images([lone, str(tmp_path / "in"), missing])
    names = [p.name for p in found.images]
    assert names == ["other.xyz", "a.png", "b.JPG", "c.webp", "missing.jpg"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        find_images([empty])


def test_overlays_of_an_earlier_run_are_not_predicted(tmp_path):
    inside = tmp_path / "overlays"
    for path in (tmp_path / "a.png", inside / "a.png", inside / "deep" / "a.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert find_images([tmp_path], leave_out=inside).images == [tmp_path / "a.png"]
    assert len(find_images([inside], leave_out=inside).images) == 2  # asked for by name
    assert len(find_images([tmp_path]).images) == 3


def test_what_an_earlier_run_made_is_no_photograph(tmp_path, rng, predictor):
    """Whatever the folder is called, and unless it was asked for; what the user changed is his."""
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, noise_image(rng, 20, 20))
    first = find_images([tmp_path]).images
    predict_files(predictor, first, out=tmp_path / "heads", json_file=None)
    Outputs("eval").write(tmp_path / "plot.png", "of another command")
    again = find_images([tmp_path])
    assert again.images == [*first, tmp_path / "plot.png"]
    assert again.left_out["made by an earlier run"] == 2
    assert len(find_images([tmp_path / "heads"]).images) == 2
    write_image(tmp_path / "heads" / "a.png", noise_image(rng, 20, 20))
    assert find_images([tmp_path]).images == [*first, tmp_path / "heads" / "a.png", again.images[2]]


def test_an_input_is_never_overwritten(tmp_path, rng, predictor):
    path = tmp_path / "a.png"
    write_image(path, noise_image(rng, 20, 20))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="choose another folder"):
        predict_files(predictor, [path], out=tmp_path, json_file=None)
    assert path.read_bytes() == before


# --- what is written -----------------------------------------------------------------------------


def test_json_and_overlays_of_many_files(tmp_path, rng, predictor, capsys):
    """Accents, spaces, one stem in two folders, and three files that cannot be read among them."""
    image = noise_image(rng, 80, 60)
    good = [tmp_path / "één" / "same name.png", tmp_path / "two" / "same name.png"]
    good.append(tmp_path / "two" / "Same Name.PNG")
    for path in good:
        write_image(path, image)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(jpeg(image)[:-900])
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    missing = tmp_path / "missing.jpg"

    out, file = tmp_path / "out" / "deep", tmp_path / "json" / "heads.json"
    failed = predict_files(
        predictor, [good[0], cut, empty, missing, *good[1:]], out=out, json_file=file, cube=True
    )
    assert failed == [cut, empty, missing]
    errors = [line for line in capsys.readouterr().err.splitlines() if "cannot read" in line]
    assert len(errors) == 3
    for path, line in zip(failed, errors, strict=True):
        assert str(path) in line

    overlays = written(out)
    assert overlays == ["Same Name_3.png", "same name.png", "same name_2.png"]
    for overlay in overlays:
        drawn = read_image(out / overlay)
        assert drawn.shape == image.shape
        assert (drawn != image).any()

    entries = json.loads(file.read_text(encoding="utf-8"))
    assert [entry["image"] for entry in entries] == [str(path) for path in good]
    expected = [head.to_json() for head in predictor(image)]
    for entry in entries:
        assert list(entry) == ["image", "width", "height", "heads"]
        assert (entry["width"], entry["height"]) == (80, 60)
        assert entry["heads"] == expected


def test_json_of_a_head(rng, predictor):
    """The keys of the documented format, plain numbers, and angles that agree with the rotation."""
    for head in predictor(noise_image(rng, 80, 60)):
        plain = json.loads(json.dumps(head.to_json(), allow_nan=False))
        assert list(plain) == ["box", "score", "rotation", "frame", "yaw", "pitch", "roll"]
        assert len(plain["box"]) == 4
        rotation = np.array(plain["rotation"])
        assert rotation.shape == (3, 3)
        angles = [plain["yaw"], plain["pitch"], plain["roll"]]
        yaw, pitch, roll = np.deg2rad(angles)
        # Section 1: R = Rx(-pitch) Ry(yaw) Rz(roll).
        assert rotation[0, 2] == pytest.approx(np.sin(yaw), abs=1e-4)
        assert rotation[1, 2] == pytest.approx(np.sin(pitch) * np.cos(yaw), abs=1e-4)
        assert rotation[0, 1] == pytest.approx(-np.cos(yaw) * np.sin(roll), abs=1e-4)


def test_json_names_the_label_where_there_are_several(tmp_path, rng):
    head = Head((0.0, 0.0, 9.0, 9.0), 0.5, np.eye(3, dtype=np.float32), 0.0, 0.0, 0.0, "helmet")

    class TwoLabels:
        class_names = ("head", "helmet")

        def predict_batch(self, images):
            return [[head] for _ in images]

    write_image(tmp_path / "a.png", noise_image(rng, 20, 20))
    predict_files(TwoLabels(), [tmp_path / "a.png"], out=None, json_file=tmp_path / "heads.json")
    entry = json.loads((tmp_path / "heads.json").read_text())[0]
    assert entry["heads"][0]["label"] == "helmet"


def test_overlays_of_tiny_and_narrow_images(tmp_path, rng, predictor):
    paths = []
    for i, (width, height) in enumerate([(1, 1), (3000, 5), (2, 700)]):
        paths.append(tmp_path / "in" / f"{i}.png")
        write_image(paths[-1], noise_image(rng, width, height))
    assert not predict_files(predictor, paths, out=tmp_path / "out", json_file=None)
    for path in paths:
        assert read_image(tmp_path / "out" / path.name).shape == read_image(path).shape


def test_names_that_are_no_text_are_predicted_and_written(tmp_path, rng, predictor):
    """Bytes of another encoding in a name, as archives of other systems leave them."""
    name = os.fsdecode(b"caf\xe9.png")
    path, out = tmp_path / "in" / name, tmp_path / os.fsdecode(b"\xff")
    write_image(path, noise_image(rng, 60, 50))
    (path.parent / os.fsdecode(b"\xff.hdr")).write_bytes(b"no image")
    images = find_images([path.parent]).images
    listed, lines = tmp_path / "heads.json", tmp_path / "heads.jsonl"
    outputs = Outputs("predict", images)

    def more(overlay, image, heads, of):
        write_crops(outputs, overlay, image, heads, of)
        write_text(outputs, overlay, image, heads, ("head",), of)

    failed = predict_files(
        predictor, images, out=out, json_file=listed, lines_file=lines, more=more, outputs=outputs
    )
    assert [os.fsencode(each.name) for each in failed] == [b"\xff.hdr"]
    assert written(out) == [name, "crops", "labels"]
    assert written(out / "labels") == [os.fsdecode(b"caf\xe9.txt")]
    (entry,) = json.loads(listed.read_text(encoding="utf-8"))
    assert entry == json.loads(lines.read_text(encoding="utf-8"))
    assert os.fsencode(entry["image"]) == os.fsencode(path)
    assert len(written(out / "crops")) == len(entry["heads"]) > 0


def test_an_image_too_large_for_its_format_is_named_with_a_cure():
    image = np.zeros((70_000, 8, 3), np.uint8)
    with pytest.raises(Unavailable, match=r"8 x 70000 pixels .* as \.jpg .*fewer parts.*\.png"):
        encode_image(image, ".jpg")
    assert encode_image(image, ".png")


def test_a_file_of_an_unknown_ending_may_be_a_video_of_another_name(tmp_path, capfd, predictor):
    paths = [tmp_path / name for name in ("clip.xyz", "photo.jpg", "missing.xyz")]
    for path in paths[:2]:
        path.write_bytes(b"no image")
    assert predict_files(predictor, paths, out=None, json_file=None) == paths
    said = [line for line in capfd.readouterr().err.splitlines() if "cannot read" in line]
    assert ["names of videos end in .mp4, " in line for line in said] == [True, False, False]


def test_files_of_several_images_are_counted_and_their_first_is_looked_at(
    tmp_path, capfd, predictor
):
    pages = [Image.fromarray(np.full((48, 64, 3), level, np.uint8)) for level in (10, 120, 240)]
    paths = []
    for form in ("gif", "webp", "png", "tiff"):
        for count in (3, 1):
            paths.append(tmp_path / f"{count}.{form}")
            pages[0].save(paths[-1], save_all=True, append_images=pages[1:count])
            assert abs(read_image(paths[-1]).mean() - 10) < 3
    assert predict_files(predictor, paths, out=None, json_file=None) == []
    assert "of 4 files that hold several images" in capfd.readouterr().err
    assert predict_files(predictor, paths[1::2], out=None, json_file=None) == []
    assert "several" not in capfd.readouterr().err
