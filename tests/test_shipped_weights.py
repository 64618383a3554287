"""The weights that ship, on real images of people they were not trained on."""

import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax import Predictor
from tests.conftest import REPOSITORY

IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(REPOSITORY / "weights" / "release")


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_one_head_that_looks_where_the_file_name_says(predictor, path):
    tilt, pan = map(int, re.search(r"([+-]\d+)([+-]\d+)$", path.stem).groups())
    # The head does half of a labelled tilt, the eyes do the rest.
    truth = Rotation.from_euler("YX", [pan, -0.55 * tilt], degrees=True)
    (head,) = predictor(path)
    error = (Rotation.from_matrix(head.rotation).inv() * truth).magnitude()
    assert np.rad2deg(error) < 30  # labels are true within some ten degrees
    left, top, right, bottom = head.box
    assert 0 <= left < right <= 384
    assert 0 <= top < bottom <= 288
    assert 80 < right - left < 260


def test_an_empty_wall_holds_no_head(predictor):
    wall = np.full((288, 384, 3), 190, np.uint8)
    assert predictor(wall) == []
