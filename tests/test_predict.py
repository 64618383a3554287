"""Prediction from the image file to JSON and overlays, with a tiny network of random weights."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import mtnet_jax
from mtnet_jax.data import geometry
from mtnet_jax.errors import BadRecord
from mtnet_jax.heads import Heads
from mtnet_jax.predict.files import find_images, predict_files
from mtnet_jax.predict.head import as_arrays
from mtnet_jax.predict.placing import heads_in_image
from mtnet_jax.predict.predictor import Head, Predictor, read_image
from mtnet_jax.rotations import axis_rotation, rotation_to_euler
from mtnet_jax.weights import export_weights, load_weights
from tests.image_files import write_image, written
from tests.tiny import SCORE


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def noise_image(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- from the network's input back to the image ------------------------------------------------


def fake_heads(boxes: np.ndarray, valid: list[bool]) -> Heads:
    """What the network would give for one image."""
    n = len(boxes)
    return Heads(
        boxes=np.asarray(boxes, np.float32)[None],
        scores=np.linspace(0.9, 0.4, n, dtype=np.float32)[None],
        labels=np.arange(n, dtype=np.int32)[None],
        rotations=axis_rotation("y", np.arange(n) * 10.0).astype(np.float32)[None],
        valid=np.array([valid]),
    )


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (64, 64), (7, 5), (3000, 41), (1003, 777)]
)
def test_boxes_come_back_in_pixels_of_the_image(rng, width, height):
    """Known boxes, letterboxed by hand: scaled by the longer side, centred in the other."""
    size = 64
    low = rng.uniform(0, 0.5, (4, 2)) * [width, height]
    high = low + rng.uniform(0.1, 0.5, (4, 2)) * [width, height]
    scale = size / max(width, height)
    margin = (size - scale * np.array([width, height])) / 2
    in_input = np.concatenate([scale * low + margin, scale * high + margin], axis=1)

    matrix = geometry.letterbox_map(width, height, size)
    found = heads_in_image(fake_heads(in_input, [True] * 4), 0, matrix, (height, width, 3))
    expected = np.concatenate([low, high], axis=1)
    np.testing.assert_allclose(found["boxes"], expected, atol=max(width, height) * 1e-5)
    np.testing.assert_array_equal(found["labels"], [0, 1, 2, 3])


def test_empty_slots_and_heads_beside_the_image_are_left_out():
    """A wide image in the middle rows of the input: what lies in the grey above is no head."""
    boxes = [[0, 20, 30, 40], [10, 10, 20, 30], [10, 0, 20, 15], [np.nan] * 4, [-9, 30, 70, 90]]
    heads = fake_heads(boxes, [True, True, True, False, True])
    found = heads_in_image(heads, 0, geometry.letterbox_map(128, 64, 64), (64, 128, 3))
    expected = [[0, 8, 60, 48], [20, 0, 40, 28], [0, 28, 128, 64]]  # twice as large, 32 higher
    np.testing.assert_allclose(found["boxes"], expected, atol=1e-4)
    assert found["labels"].tolist() == [0, 1, 4]
    assert (np.diff(found["scores"]) < 0).all()
    np.testing.assert_allclose(found["rotations"], axis_rotation("y", np.array([0.0, 10, 40])))


# --- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3000, 5), (5, 3000), (64, 64), (333, 217)])
def test_images_of_any_shape(rng, predictor, width, height):
    heads = predictor(noise_image(rng, width, height))
    assert len(heads) <= 6
    assert [h.score for h in heads] == sorted((h.score for h in heads), reverse=True)
    for head in heads:
        left, top, right, bottom = head.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert SCORE <= head.score <= 1
        np.testing.assert_allclose(head.rotation @ head.rotation.T, np.eye(3), atol=1e-5)
        angles = rotation_to_euler(head.rotation.astype(float), convention="canonical")
        np.testing.assert_allclose([head.yaw, head.pitch, head.roll], angles, atol=1e-4)
        assert head.label == "head"


def test_random_weights_find_something(rng, predictor):
    """Else the other tests would look at empty lists."""
    assert predictor(noise_image(rng, 333, 217))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((20, 30), np.uint8),
        np.zeros((20, 30, 1), np.uint8),
        np.zeros((20, 30, 4), np.uint8),
        np.zeros((20, 30, 3), np.float32),
        np.zeros((0, 30, 3), np.uint8),
        np.zeros((2, 20, 30, 3), np.uint8),
    ],
    ids=lambda a: f"{a.shape}-{a.dtype}",
)
def test_other_arrays_are_refused_by_shape_and_type(predictor, bad):
    with pytest.raises(ValueError, match=r"\(height, width, 3\) uint8 RGB") as caught:
        predictor(bad)
    assert str(bad.shape) in str(caught.value)
    assert str(bad.dtype) in str(caught.value)


def test_opencv_images_with_reversed_axis(rng, predictor):
    """The documented way from BGR: a view with a negative stride."""
    image = noise_image(rng, 90, 70)
    expected = [h.to_json() for h in predictor(image)]
    bgr = np.ascontiguousarray(image[..., ::-1])
    assert [h.to_json() for h in predictor(bgr[..., ::-1])] == expected
    image.flags.writeable = False
    assert [h.to_json() for h in predictor(image)] == expected


def test_other_sizes_do_not_compile_again(rng, predictor):
    predictor(noise_image(rng, 30, 30))
    compiled = []

    def listen(event: str, duration: float, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for width, height in [(31, 30), (640, 480), (5, 900)]:
            predictor(noise_image(rng, width, height))
        assert not compiled
        jax.jit(lambda x: x * 2 + len(compiled))(np.float32(1))  # the listener does hear
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_predicting_is_repeatable(rng, predictor, weights):
    image = noise_image(rng, 120, 80)
    again = Predictor.load(str(weights), score_threshold=SCORE)
    assert [h.to_json() for h in predictor(image)] == [h.to_json() for h in again(image)]


# --- files ---------------------------------------------------------------------------------------


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


def test_an_input_is_never_overwritten(tmp_path, rng, predictor):
    path = tmp_path / "a.png"
    write_image(path, noise_image(rng, 20, 20))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="choose another folder"):
        predict_files(predictor, [path], out=tmp_path, json_file=None)
    assert path.read_bytes() == before


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


def test_no_heads_as_arrays():
    arrays = as_arrays([])
    assert arrays["boxes"].shape == (0, 4)
    assert arrays["rotations"].shape == (0, 3, 3)
    assert arrays["scores"].shape == (0,)


# --- weights -------------------------------------------------------------------------------------


def copy_of(weights: Path, folder: Path) -> SimpleNamespace:
    """An exported folder to damage: its paths and its arrays."""
    folder.mkdir()
    for path in weights.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with np.load(folder / "weights.npz") as stored:
        arrays = dict(stored)
    return SimpleNamespace(
        folder=folder, config=folder / "config.json", npz=folder / "weights.npz", arrays=arrays
    )


def test_damaged_weights_are_named(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    data = copy.npz.read_bytes()
    for bad in (b"", b"text", data[: len(data) // 2], data[:-30]):
        copy.npz.write_bytes(bad)
        with pytest.raises(ValueError, match=r"weights\.npz is damaged"):
            load_weights(copy.folder)


def test_weights_of_another_network_are_refused_by_name(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    name = next(name for name in copy.arrays if name.startswith("params/"))
    np.savez(copy.npz, **{k: v for k, v in copy.arrays.items() if k != name})
    with pytest.raises(ValueError, match=f"lacks {name}"):
        load_weights(copy.folder)
    np.savez(copy.npz, **copy.arrays, surplus=np.zeros(3))
    with pytest.raises(ValueError, match="unexpected surplus"):
        load_weights(copy.folder)
    np.savez(copy.npz, **{**copy.arrays, name: copy.arrays[name][..., None]})
    with pytest.raises(ValueError, match=rf"{name} has shape"):
        load_weights(copy.folder)


def test_configurations_of_something_else_are_refused(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    copy.config.write_text("{half")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        load_weights(copy.folder)
    copy.config.write_text('{"architectures": ["Other"]}')
    with pytest.raises(ValueError, match=r"config\.json has no 'class_names'"):
        load_weights(copy.folder)
    copy.config.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        load_weights(copy.folder)


def test_export_in_half_precision(weights, tmp_path):
    """Parameters halved, statistics not: a variance beyond float16 must not become infinite."""
    copy = copy_of(weights, tmp_path / "copy")
    variance = next(name for name in copy.arrays if name.endswith("/var"))
    copy.arrays[variance][:] = 1e6
    np.savez(copy.npz, **copy.arrays)
    with np.load(export_weights(copy.folder, tmp_path / "half", half=True)) as stored:
        exported = dict(stored)
    assert exported.keys() == copy.arrays.keys()
    for name, value in exported.items():
        halved = name.startswith("params/")
        assert value.dtype == (np.float16 if halved else np.float32)
        np.testing.assert_allclose(value, copy.arrays[name], rtol=1e-3 if halved else 0, atol=1e-6)
    loaded = flatten_dict(load_weights(tmp_path / "half")[1], sep="/")
    assert {value.dtype.name for value in loaded.values()} == {"float32"}

    name = next(name for name in copy.arrays if name.startswith("params/"))
    copy.arrays[name].flat[0] = 1e5
    np.savez(copy.npz, **copy.arrays)
    with pytest.raises(ValueError, match=f"{name} is too large for float16"):
        export_weights(copy.folder, tmp_path / "half", half=True)


def test_export_over_its_own_source_is_refused(weights, tmp_path):
    copy = copy_of(weights, tmp_path / "copy")
    with pytest.raises(ValueError, match="export to another folder"):
        export_weights(copy.folder, copy.folder / ".." / "copy", half=False)


# --- the package ---------------------------------------------------------------------------------


def test_package_offers_the_three_lines():
    assert mtnet_jax.Predictor is Predictor
    assert mtnet_jax.Head is Head
    with pytest.raises(AttributeError, match="Predicter"):
        mtnet_jax.Predicter  # noqa: B018


@pytest.mark.parametrize("module", ["mtnet_jax", "mtnet_jax.cli", "data_prep.convert"])
def test_imports_that_must_stay_light(module):
    code = f"import sys, {module}; print([m for m in ('jax', 'numpy', 'cv2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
