"""The demo records: what demo/README.md says of them, and the rotations that the studio meant."""

import dataclasses

import numpy as np
import pytest

from mtnet_jax.data.records import RecordSet, RecordSource
from mtnet_jax.rotations import geodesic_degrees
from tests.conftest import REPOSITORY

DEMO = REPOSITORY / "demo" / "studio_demo"


def records_of(split: str) -> list[dict]:
    source = RecordSource(DEMO, split)
    return [source[i] for i in range(len(source))]


def test_demo_records_hold_what_their_readme_says():
    opened = RecordSet.open(DEMO)
    assert opened.splits == {"train": 700, "test": 150}
    assert opened.box_rule == "head"
    for split, heads in {"train": 847, "test": 176}.items():
        records = records_of(split)
        assert sum(len(record["boxes"]) for record in records) == heads
        assert all(record["image"].shape == (192, 192, 3) for record in records)
        assert all(record["image_id"].startswith(f"studio-7-{split}-") for record in records)
        assert all(record["has_pose"].all() for record in records)
    size = sum(path.stat().st_size for path in DEMO.iterdir())
    assert size < 15e6


@pytest.mark.parametrize("split", ["train", "test"])
def test_demo_heads_look_all_the_way_round(split):
    """A third of the headings in every third of the circle, within five deviations of chance."""
    rotations = np.concatenate([record["rotations"] for record in records_of(split)])
    normal = -rotations[:, :, 2]  # out of the face, in camera axes: (0, 0, -1) looks at us
    heading = np.rad2deg(np.arctan2(-normal[:, 0], -normal[:, 2]))
    thirds = np.histogram(heading % 360, bins=[0, 120, 240, 360])[0]
    expected = len(heading) / 3
    assert np.all(np.abs(thirds - expected) < 5 * np.sqrt(expected * 2 / 3))


@pytest.mark.parametrize("split", ["train", "test"])
def test_demo_rotations_are_those_of_the_scenes(assets_dir, split):
    """Scenes are drawn again from the seed; what is written is what their heads were turned by."""
    pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")
    from data_prep.studio.random_scene import PoseSpread, SceneOptions, random_scene
    from data_prep.studio.records import TEST_IDENTITIES, figure_of

    options = SceneOptions(
        width=192,
        height=192,
        people=(1, 2),
        head_share=(0.45, 0.9),
        poses=dataclasses.replace(PoseSpread(), wide_share=0.2),
    )
    first = TEST_IDENTITIES if split == "test" else 0
    compared = 0
    for record in records_of(split)[:24]:
        frame = int(record["image_id"].split("-")[-1])
        scene = random_scene(
            figure_of(assets_dir), options, np.arange(first, first + 300), 7, first + frame
        )
        for rotation in record["rotations"]:
            meant = [scene.cameras[0].rotation @ placed.head_rotation for placed in scene.people]
            assert min(geodesic_degrees(np.stack(meant), rotation[None])) < 1e-3
            compared += 1
        assert all((p.person.identity >= TEST_IDENTITIES) == bool(first) for p in scene.people)
    assert compared >= 20
