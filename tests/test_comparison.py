"""Several weights on the same heads: what is compared, with what interval, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.cli import main
from mtnet_jax.errors import BadInput
from mtnet_jax.evaluation.comparison import (
    compare,
    differences_of,
    format_comparison,
    format_differences,
    group_of,
    names_of,
)
from mtnet_jax.evaluation.metrics import Settings, evaluate, image_state
from mtnet_jax.evaluation.run import Evaluation
from tests.tiny import DEMO_RECORDS


def turned(degrees):
    return Rotation.from_euler("Y", degrees, degrees=True).as_matrix()


def evaluation(errors, *, images=20, heads=3, names="p{}/{}", protocol="matched", extra=()):
    """Heads 20 pixels apart, all with a pose; errors(image, head) in degrees, None is missed."""
    settings, pairs, ids = Settings(protocol=protocol), [], []
    boxes = np.array([[40 * h, 0, 40 * h + 20, 20] for h in range(heads)], float)
    for image in range(images):
        off = [errors(image, head) for head in range(heads)]
        found = [h for h in range(heads) if off[h] is not None]
        rotations = np.array([turned(off[h]) for h in found]).reshape(-1, 3, 3)
        prediction = {"boxes": boxes[found], "scores": np.full(len(found), 0.9)}
        if image in extra:
            prediction = {"boxes": boxes[[0] * 9], "scores": np.full(9, 0.9)}
            rotations = np.array([np.eye(3)] * 9)
        truth = {
            "boxes": boxes,
            "rotations": np.array([np.eye(3)] * heads),
            "has_pose": np.ones(heads, bool),
            "ignore": np.zeros(heads, bool),
        }
        pairs.append(({**prediction, "rotations": rotations}, truth))
        ids.append(names.format(image % 4, image))
    rows = [image_state(p, t, settings).rows for p, t in pairs]
    results = {"network": evaluate(pairs, protocol=protocol)}
    return Evaluation(results, Path("somewhere"), "records", ids, rows)


def by_key(mine, theirs, group=""):
    return {each.measure.key: each for each in differences_of(mine, theirs, group)}


def test_errors_are_compared_on_heads_that_both_found_and_recall_on_all():
    """The one that finds the hard heads too is not punished for it."""
    hard = lambda image, head: 60 if head == 2 else 10  # noqa: E731
    easy = lambda image, head: None if head == 2 else 12  # noqa: E731
    finds_all, skips = evaluation(hard), evaluation(easy)
    assert finds_all.results["network"]["pose"]["geodesic_mean"] == pytest.approx(80 / 3)
    found = by_key(finds_all, skips)
    geodesic = found["geodesic"]
    assert (geodesic.heads, geodesic.mine, geodesic.theirs) == pytest.approx((40, 10, 12))
    assert geodesic.interval.value == pytest.approx(-2)
    assert found["recall"].heads == 60
    assert found["recall"].interval.value == pytest.approx(1 / 3)
    assert found["iou"].interval.value == pytest.approx(1 / 3)


def test_intervals_are_of_images_or_of_what_their_names_share():
    """Errors that differ by image alone: as many independent ones as images, or as persons."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 8, 20)
    mine = evaluation(lambda image, head: 30 + offsets[image])
    theirs = evaluation(lambda image, head: 30.0)
    by_image = by_key(mine, theirs)["geodesic"].interval
    assert by_image.support == 20
    # The standard error of the mean of 20 images, not of 60 heads; 1.96 of it to either side.
    expected = offsets.std() / np.sqrt(20)
    assert (by_image.high - by_image.low) / (2 * 1.96) == pytest.approx(expected, rel=0.15)
    by_person = by_key(mine, theirs, "^(p[0-9]+)/")["geodesic"].interval
    assert (by_person.support, by_person.low) == (4, None)  # of 4 persons nothing can be said
    with pytest.raises(BadInput, match="finds nothing in the image name 'p0/0'"):
        differences_of(mine, theirs, "person")


def test_images_that_a_protocol_skips_for_one_are_left_out_for_both():
    mine = evaluation(lambda image, head: 10.0, protocol="authors", extra=(3, 4))
    theirs = evaluation(lambda image, head: 20.0, protocol="authors", extra=(4, 5))
    found = by_key(mine, theirs)
    assert found["geodesic"].heads == found["recall"].heads == 17 * 3
    assert found["geodesic"].interval.value == pytest.approx(-10)


def test_the_table_says_which_is_better():
    sets = {
        "set:test": {
            "first": evaluation(lambda image, head: 20.0 + image % 3),
            "better": evaluation(lambda image, head: 10.0 + image % 5),
            "misses": evaluation(lambda image, head: None if head else 20.0 + image % 3),
        }
    }
    sets["other:test"] = {"first": sets["set:test"]["better"], "alone": sets["set:test"]["first"]}
    table = [line.split() for line in format_comparison(sets).splitlines()]
    assert [line[:2] for line in table if line[0] in ("set:test", "other:test")] == [
        ["set:test", "first"],
        ["other:test", "first"],
    ]
    assert [line[0] for line in table if line[0] in ("better", "misses", "alone")] == [
        *("better", "misses", "alone"),
    ]
    del sets["other:test"]
    lines = format_differences(compare(sets)).splitlines()
    rows = [line.split() for line in lines if line.startswith("  ")]
    assert [row[0] for row in rows] == ["geodesic", "heading", "recall", "IoU,"] * 2
    assert [row[-1] for row in rows[:2]] == ["+", "+"]
    assert rows[4][2:] == ["20", "20.95°", "20.95°", "+0.00°", "+0.00°", "to", "+0.00°"]
    assert rows[6][-1] == "-"
    assert rows[6][1:5] == ["60", "100.0%", "33.3%", "-66.7%"]


def test_other_images_are_refused():
    mine = evaluation(lambda image, head: 1.0)
    with pytest.raises(BadInput, match="different images"):
        differences_of(mine, evaluation(lambda image, head: 1.0, names="q{}/{}"))


def test_short_names_are_whole_where_two_are_alike():
    names = names_of([Path("runs/a"), Path("other/a"), Path("peer.json"), Path("x/heads.onnx")])
    assert names == ["runs_a", "other_a", "peer", "heads"]
    with pytest.raises(BadInput, match="named twice"):
        names_of([Path("a"), Path("a")])


@pytest.mark.slow
def test_weights_beside_a_program(tmp_path, capsys, weights):
    """The command, once more with other weights, and what it says where something is missing."""
    from mtnet_jax.data.records import RecordSource

    entries = []
    source = RecordSource(DEMO_RECORDS, "test", decode=False)
    for i in np.linspace(0, len(source) - 1, 6).round().astype(int):
        record = source[int(i)]
        heads = [
            {"box": box.tolist(), "score": 0.8, "rotation": rotation.tolist()}
            for box, rotation in zip(record["boxes"], record["rotations"], strict=True)
        ]
        entries.append({"image": record["image_id"] + ".png", "heads": heads})
    peer, out = tmp_path / "peer.json", tmp_path / "out"
    peer.write_text(json.dumps(entries))
    command = ["eval", "--weights", str(weights), str(peer), "--data", str(DEMO_RECORDS)]
    command += ["--limit", "6", "--batch-size", "6"]
    assert main([*command, "--out", str(out), "--worst", "4", "--score", "0"]) == 0
    printed = capsys.readouterr().out
    assert (out / "comparison.txt").read_text() in printed
    content = json.loads((out / "comparison.json").read_text())["sets"]
    (entry,) = content.values()
    assert list(content) == ["studio_demo:test"]
    assert entry["results"]["peer"]["pose"]["geodesic_mean"] == pytest.approx(0, abs=0.1)
    assert entry["results"]["peer"]["detection"]["recall"] == 1
    assert entry["against"] == weights.name
    assert entry["differences"]["peer"]["recall"]["first"] < 1
    for name in (weights.name, "peer"):
        assert (out / name / "studio-test" / "worst.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "by_yaw-studio-test.png").is_file()
    assert main([*command, "--out", str(out), "--worst", "3", "--score", "0"]) == 0  # replaced
    assert not list(out.glob("*/*_2"))
    capsys.readouterr()
    assert main(command) == 1
    assert "name it with --out" in capsys.readouterr().err
    assert main([*command, "--out", str(out), "--group", "nobody"]) == 1
    assert "'nobody' finds nothing in the image name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--out", str(out), "--group", "("])
    assert "no regular expression" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "no"), *command[3:], "--out", str(out)]) == 1
    assert f"There are no weights at {tmp_path / 'no'}" in capsys.readouterr().err
    peer.write_text(json.dumps(entries[:-1]))
    assert main([*command, "--out", str(out)]) == 1
    assert "says nothing of 1 of 6 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "pattern", "group"),
    [
        ("p1_a", r"(p\d+)_|(q\d+)_", "p1"),
        ("q2_a", r"(p\d+)_|(q\d+)_", "q2"),
        ("q2_a", r"q\d", "q2"),
        ("q2_a", "", "q2_a"),
    ],
)
def test_the_group_of_an_image(name, pattern, group):
    assert group_of(name, pattern) == group
