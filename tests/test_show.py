"""Contact sheets of record sets: which heads are chosen, what is drawn, what is refused."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSource
from mtnet_jax.data.selection import parse_selection, selected_splits
from mtnet_jax.evaluation.heads import head_errors, head_errors_as_json, read_head_errors
from mtnet_jax.evaluation.metrics import Settings, image_state
from mtnet_jax.inspection import show
from mtnet_jax.predict.predictor import read_image
from tests.record_sets import a_record, write_record_set

YELLOW, GREY = (255, 205, 0), (150, 150, 150)


@pytest.fixture
def records(tmp_path):
    """Eight images in two splits: head i of image k has yaw -170 + 45 k and side 6 + 2 k."""
    splits = {"train": [], "test": []}
    for k in range(8):
        yaw = Rotation.from_euler("Y", -170 + 45 * k, degrees=True).as_matrix()
        side = 6 + 2 * k
        record = a_record(f"image {k}", boxes=[(20, 15, 20 + side, 15 + side)], rotations=[yaw])
        splits["train" if k < 5 else "test"].append(record)
    splits["test"].append(a_record("nobody", boxes=[]))
    splits["test"].append(
        a_record("ignored", boxes=[(5, 5, 8, 8), (40, 10, 55, 30)], ignore=[True, False])
    )
    return write_record_set(tmp_path / "tiny", splits)


def labels(folder, splits=("train", "test")):
    return [RecordSource(folder, split, decode=False) for split in splits]


def names(views, sources):
    return [sources[v.source][v.record]["image_id"] for v in views]


def test_selection(tmp_path):
    assert parse_selection("a/b:test") == (tmp_path.__class__("a/b"), "test")
    assert parse_selection("a/b", default="train") == (tmp_path.__class__("a/b"), "train")
    assert parse_selection("a/b:", default="train") == (tmp_path.__class__("a/b"), "train")
    strange = tmp_path / "12:30"
    strange.mkdir()
    assert parse_selection(str(strange)) == (strange, "")
    assert parse_selection(f"{strange}:test") == (strange, "test")


def test_all_splits_unless_one_is_named(records):
    assert selected_splits(str(records))[1] == ["train", "test"]
    assert selected_splits(f"{records}:test")[1] == ["test"]


def test_list_heads(records):
    heads = show.list_heads(labels(records))
    assert len(heads) == 10
    np.testing.assert_allclose(heads["size"][:8], 6 + 2 * np.arange(8))
    np.testing.assert_allclose(heads["yaw"][:8], [-170 + 45 * k for k in range(8)], atol=1e-4)
    assert np.isnan(heads["yaw"][8:]).all()
    assert heads["ignore"].tolist() == [False] * 8 + [True, False]


def test_smallest_heads_come_first_and_ignored_ones_not(records):
    sources = labels(records)
    views = show.small_views(show.list_heads(sources), 3)
    assert names(views, sources) == ["image 0", "image 1", "image 2"]
    assert [view.words for view in views] == ["6 px", "8 px", "10 px"]


def test_yaw_bins_cover_the_circle(records):
    sources = labels(records)
    rng = np.random.default_rng(0)
    views = show.yaw_views(show.list_heads(sources), 24, rng)
    assert len(views) == 24
    yaws = [-170 + 45 * k for k in range(8)]
    for number in range(12):
        low = -180 + 30 * number
        expected = {f"image {k}" for k, yaw in enumerate(yaws) if low <= yaw < low + 30}
        found = [v for v in views[2 * number : 2 * number + 2] if v.source is not None]
        assert set(names(found, sources)) == expected
        assert len(found) == len(expected)
    assert sum(view.words == "no head of yaw -60 to -30" for view in views) == 1


def test_random_images_are_different_ones(records):
    sources = labels(records)
    rng = np.random.default_rng(3)
    views = show.random_views([5, 5], 100, rng)
    assert sorted(names(views, sources)) == sorted(
        [*(f"image {k}" for k in range(8)), "nobody", "ignored"]
    )
    again = show.random_views([5, 5], 4, np.random.default_rng(3))
    assert again == show.random_views([5, 5], 4, np.random.default_rng(3))
    assert again != show.random_views([5, 5], 4, np.random.default_rng(4))


# --- what is drawn -------------------------------------------------------------------------------


def extent(cell, colour) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero((cell == colour).all(axis=-1))
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def grey_record(size, box, **changes):
    """A decoded record of a grey image with one head."""
    record = a_record("grey", boxes=[box], **changes)
    return {**record, "image": np.full((size[1], size[0], 3), 90, np.uint8)}


@pytest.mark.parametrize("box", [(20, 30, 60, 90), (1890, 1050, 1920, 1080), (900, 500, 912, 515)])
def test_a_small_head_is_enlarged_and_its_box_lands_where_the_pixels_are(box):
    """The head is a white block: the yellow box must frame the block after cutting and scaling."""
    record = grey_record((1920, 1080), box)
    x1, y1, x2, y2 = box
    record["image"][y1:y2, x1:x2] = 255
    cell = show.draw_part(record, 0, show.CELL)
    assert cell.shape[0] <= show.CELL[1]
    assert cell.shape[1] <= show.CELL[0]
    drawn = extent(cell, YELLOW)
    block = (cell > 245).all(axis=-1)
    ys, xs = np.nonzero(block)
    # The box is drawn over the rim of the block: a few pixels of line.
    inner = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(inner - drawn).max() <= 9
    assert drawn[3] - drawn[1] >= 0.4 * show.CELL[1]


def test_a_large_head_shows_the_whole_image():
    record = grey_record((280, 200), (50, 40, 200, 180))
    cell = show.draw_part(record, 0, show.CELL)
    assert cell.shape == (400, 560, 3)
    np.testing.assert_allclose(extent(cell, YELLOW), (100, 80, 400, 360), atol=3)


def test_a_whole_image_has_its_small_head_beside_it():
    record = grey_record((1920, 1080), (900, 500, 912, 515))
    cell = show.draw_whole(record, 0)
    assert cell.shape[1] <= show.CELL[0]
    part = cell[:, -(show.CELL[0] // 3) :]
    low, high = extent(part, YELLOW)[1::2]
    assert high - low >= 0.4 * part.shape[0]
    assert show.draw_whole(
        {**record, "boxes": np.zeros((0, 4), np.float32)}
        | {
            "rotations": np.zeros((0, 3, 3), np.float32),
            "has_pose": np.zeros(0, bool),
            "headings": np.zeros(0, np.float32),
            "has_heading": np.zeros(0, bool),
            "ignore": np.zeros(0, bool),
        },
        None,
    ).shape == (315, 560, 3)


def test_ignored_heads_are_crossed_out():
    record = grey_record((280, 200), (50, 40, 200, 180), ignore=[True])
    cell = show.draw_part(record, 0, show.CELL)
    assert not (cell == YELLOW).all(axis=-1).any()
    np.testing.assert_allclose(extent(cell, GREY), (100, 80, 400, 360), atol=3)
    middle = cell[218:223, 248:253].astype(int)
    assert np.abs(middle - GREY).max(axis=-1).min() < 10  # both diagonals cross there


def test_captions():
    turned = Rotation.from_euler("XYZ", [-10, -130, 5], degrees=True).as_matrix()  # canonical
    record = grey_record((280, 200), (50, 40, 200, 180), rotations=[turned])
    view = show.View(0, 0, 0, "12° off")
    assert show._caption(record, view) == "12° off  y-130 p+10 r+5  grey"
    record["image_id"] = "x" * 50 + "end"
    assert show._caption(record, show.View(0, 0, None)) == "no heads  ..." + "x" * 17 + "end"


# --- worst ---------------------------------------------------------------------------------------


def predicted(record, degrees, shift=0.0):
    turn = Rotation.from_euler("Y", degrees, degrees=True).as_matrix()
    return {
        "boxes": record["boxes"] + np.float32(shift),
        "rotations": (turn @ record["rotations"]).astype(np.float32),
        "scores": np.full(len(record["boxes"]), 0.9, np.float32),
    }


def write_errors(folder, path, settings=None) -> None:
    """Errors of 0, 10, 20, ... 70 degrees; image 6 is missed."""
    pairs = []
    for source in labels(folder):
        for i in range(len(source)):
            record = source[i]
            k = int(record["image_id"].split()[-1]) if record["image_id"][-1].isdigit() else 0
            pairs.append((predicted(record, 10 * k, shift=100.0 if k == 6 else 0.0), record))
    settings = settings or Settings()
    path.write_text(head_errors_as_json(pairs, states_of(pairs, settings), settings, "camera"))


def states_of(pairs, settings):
    return [image_state(prediction, truth, settings) for prediction, truth in pairs]


def test_errors_of_heads_as_a_file(records, tmp_path):
    write_errors(records, tmp_path / "heads.json")
    frame, heads = read_head_errors(tmp_path / "heads.json")
    assert frame == "camera"
    entries = {entry["image_id"]: entry for entry in heads}
    assert len(entries) == 9  # the image without heads has none
    for k in (0, 1, 5, 7):
        entry = entries[f"image {k}"]
        assert entry["head"] == 0
        assert entry["geodesic"] == pytest.approx(10 * k, abs=0.1)
        assert entry["heading"] == pytest.approx(10 * k, abs=0.1)  # they turn about the vertical
        assert entry["iou"] == pytest.approx(1)
        side = 6 + 2 * k
        assert entry["prediction"]["box"] == [20, 15, 20 + side, 15 + side]
        expected = Rotation.from_euler("Y", -170 + 55 * k, degrees=True).as_matrix()
        np.testing.assert_allclose(entry["prediction"]["rotation"], expected, atol=1e-6)
    missed = entries["image 6"]
    assert (missed["iou"], missed["geodesic"], missed["prediction"]) == (0, None, None)
    # Of the image with an ignored head, the other one: it has no pose.
    assert entries["ignored"]["head"] == 1
    assert entries["ignored"]["geodesic"] is None
    assert entries["ignored"]["iou"] == 1


def test_images_the_protocol_skips_have_no_errors():
    record = a_record("two", boxes=[(1, 2, 20, 20), (30, 2, 50, 20)])
    prediction = predicted(record, 5)
    one = {name: value[:1] for name, value in prediction.items()}
    for found, entries in ((one, 0), (prediction, 2)):
        states = states_of([(found, record)], Settings(protocol="authors"))
        assert len(list(head_errors([(found, record)], states))) == entries


def test_worst_first(records, tmp_path):
    file = tmp_path / "heads.json"
    write_errors(records, file)
    sources = labels(records)
    views = show.worst_views(sources, read_head_errors(file)[1], 3, file)
    assert names(views, sources) == ["image 7", "image 5", "image 4"]
    assert [view.words for view in views] == ["70° off", "50° off", "40° off"]
    entries = [{**e, "geodesic": None} for e in read_head_errors(file)[1]]  # headings alone
    views = show.worst_views(sources, entries, 2, file)
    assert names(views, sources) == ["image 7", "image 5"]
    assert [view.words for view in views] == ["70° off", "50° off"]
    views = show.worst_views(sources, [{**e, "heading": None} for e in entries], 2, file)
    assert names(views, sources)[0] == "image 6"
    assert [view.words for view in views] == ["missed", "IoU 1.00"]


def test_worst_of_other_records_is_refused(records, tmp_path, capsys):
    file = tmp_path / "heads.json"
    write_errors(records, file)
    words = ["data", "show", f"{records}:train", "--out", str(tmp_path / "x.png"), "--by", "worst"]
    assert main([*words, "--metrics", str(file)]) == 1
    assert "'image 7', which is not among these records" in capsys.readouterr().err
    assert main(words) == 1
    assert "--metrics FILE" in capsys.readouterr().err
    for text in ("{", "[]", '{"heads": [{"image_id": "a"}]}'):
        file.write_text(text)
        assert main([*words, "--metrics", str(file)]) == 1
        assert "is not the heads.json of `mtnet eval`" in capsys.readouterr().err
    assert main([*words, "--metrics", str(tmp_path / "no.json")]) == 1
    assert "no.json" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


# --- command -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", show.ORDERS)
def test_show_command(records, tmp_path, capsys, by):
    out = tmp_path / "sheets" / "ü sheet.png"
    words = ["data", "show", str(records), "--out", str(out), "--by", by, "--count", "12"]
    if by == "worst":
        write_errors(records, tmp_path / "heads.json")
        words += ["--metrics", str(tmp_path / "heads.json")]
    assert main(words) == 0
    shown = {"random": 10, "yaw": 8, "small": 9, "worst": 7}[by]
    assert f"{out}: {shown} shown" in capsys.readouterr().out
    sheet = read_image(out)
    rows, columns = {"random": (3, 4), "yaw": (3, 4), "small": (3, 4), "worst": (2, 4)}[by]
    assert sheet.shape[1] == pytest.approx(columns * show.CELL[0], rel=0.05)
    assert sheet.shape[0] == pytest.approx(rows * show.CELL[1], rel=0.15)
    assert (sheet == YELLOW).all(axis=-1).sum() > 100


def test_show_names_what_is_missing(records, tmp_path, capsys):
    words = ["--out", str(tmp_path / "x.png")]
    assert main(["data", "show", f"{records}:night", *words]) == 1
    assert "'night'" in capsys.readouterr().err
    assert main(["data", "show", str(tmp_path / "no"), *words]) == 1
    assert "No record set" in capsys.readouterr().err
    nobody = write_record_set(tmp_path / "nobody", {"train": [a_record("nobody", boxes=[])]})
    for by in ("yaw", "small"):
        assert main(["data", "show", str(nobody), *words, "--by", by]) == 1
        assert f"nothing to show by {by}" in capsys.readouterr().err
    assert main(["data", "show", str(nobody), *words]) == 0
    assert cv2.imread(str(tmp_path / "x.png")) is not None


def test_sheets_of_evaluations_read_what_evaluations_write(records, tmp_path):
    """The file holds plain JSON, without NaN."""
    write_errors(records, tmp_path / "heads.json")
    content = json.loads(
        (tmp_path / "heads.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )
    assert content["settings"]["iou_threshold"] == 0.5
