"""`mtnet data anchors`: which boxes it reads, and that it prints what a config takes."""

import re

import numpy as np
import pytest

from mtnet_jax.cli import main
from mtnet_jax.data.records import RecordSource
from mtnet_jax.inspection.anchor_fit import letterboxed_sizes
from tests.record_sets import WIDTH, a_record, write_record_set


@pytest.fixture
def records(tmp_path):
    """Nine shapes of head in train, one in test, one that is ignored."""
    sides = [(3 + 4 * i, 2 + 4 * i) for i in range(9)]
    train = [a_record(f"{w}", boxes=[(1, 1, 1 + w, 1 + h)]) for w, h in sides for _ in range(3)]
    train.append(a_record("ignored", boxes=[(0, 0, 60, 1), (0, 0, 3, 2)], ignore=[True, False]))
    return write_record_set(
        tmp_path / "tiny", {"train": train, "test": [a_record("x", boxes=[(0, 0, 50, 40)])]}
    )


def test_sizes_are_those_in_an_input_of_416(records):
    sizes = letterboxed_sizes(RecordSource(records, "train", decode=False))
    scale = 416 / WIDTH  # the longer side
    expected = [(3 + 4 * i, 2 + 4 * i) for i in range(9) for _ in range(3)] + [(3, 2)]
    np.testing.assert_allclose(sizes, np.array(expected) * scale, rtol=1e-6)


def test_anchors_command(records, capsys):
    assert main(["data", "anchors", str(records), f"{records}:test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{records}: 28 boxes", f"{records}:test: 1 boxes"]
    anchors = re.findall(r"\(([\d.]+), ([\d.]+)\)", "".join(lines))
    assert len(anchors) == 9
    before, after = map(float, re.findall(r"0\.\d+|1\.000", lines[-1]))
    assert before < after


def test_anchors_of_nine_shapes_are_those_shapes(records, capsys):
    assert main(["data", "anchors", str(records)]) == 0
    out = capsys.readouterr().out
    found = sorted(tuple(map(float, a)) for a in re.findall(r"\(([\d.]+), ([\d.]+)\)", out))
    expected = [((3 + 4 * i) * 416 / WIDTH, (2 + 4 * i) * 416 / WIDTH) for i in range(9)]
    np.testing.assert_allclose(found, expected, atol=0.06)
    assert out.rstrip().endswith("1.000 with these")
