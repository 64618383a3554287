"""The report of a conversion: counts, histograms, merging, the page."""

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from data_prep.builder import write_record_set
from tests.conversions import tiny, tiny_record

REPOSITORY = Path(__file__).resolve().parent.parent


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
