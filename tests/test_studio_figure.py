"""The studio's people: their zero pose, necks that bend, hair, and the assets they are made of."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")

from data_prep.studio.assets import read_assets, read_obj
from data_prep.studio.bend import place_part
from data_prep.studio.figure import LANDMARKS, cut_mesh, opacity, to_head_axes
from data_prep.studio.people import make_person
from tests.studio_scenes import stand


def test_the_nose_follows_the_axes_and_the_back_of_the_head_does_not(people):
    for yaw in range(-180, 180, 45):
        head = stand(people[0], (yaw, 0, 0))
        landmarks = people[0].landmarks @ head.head_rotation.T
        outward = -head.head_rotation[:, 2]
        assert (landmarks[30] - landmarks.mean(axis=0)) @ outward > 0.015
        eyes = landmarks[69] - landmarks[68]  # from the subject's right eye to the left one
        assert angle_between(eyes, head.head_rotation[:, 0]) < 4
        chin = landmarks[8] - landmarks[27]
        assert chin @ head.head_rotation[:, 1] > 0.07


def angle_between(a, b) -> float:
    return float(np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))


def test_every_shape_has_the_zero_pose_of_the_base_mesh(figure, people):
    base = to_head_axes(figure.vertices[LANDMARKS[:68]])
    for person in people:
        points = person.landmarks[:68]
        turn, _ = Rotation.align_vectors(base - base.mean(axis=0), points - points.mean(axis=0))
        assert np.degrees(turn.magnitude()) < 5
        assert abs(points[:, 0].mean()) < 0.004


def test_heads_move_rigidly_and_necks_do_not_break(figure, people):
    for angles in ((65, 0, 0), (0, 45, 0), (-60, -40, 30)):
        placed = stand(people[3], angles, (0.2, -0.1, 1.5), np.eye(3))
        for part in people[3].parts:
            points, normals = place_part(part, placed)
            head = part.head_share >= 1
            expected = part.points[head] @ placed.head_rotation.T + placed.head_position
            np.testing.assert_allclose(points[head], expected, atol=1e-9)
            lengths = np.linalg.norm(normals, axis=1)
            assert (abs(lengths - np.linalg.norm(part.normals, axis=1)) < 1e-6).all()
            assert (abs(lengths - 1) < 1e-6).mean() > 0.97  # slivers without area have none
            edges = part.triangles[:, [0, 1]]
            rest = np.linalg.norm(part.points[edges[:, 0]] - part.points[edges[:, 1]], axis=1)
            bent = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
            assert (bent < 4 * rest + 0.01).all()


def test_fringes_against_triangles_filled_one_by_one(figure):
    """What hair hides of the face, drawn from the front, 200 pixels a decimetre."""
    points = figure.assets.base.vertices[LANDMARKS[17:]]
    pixels = lambda xyz: np.round(200 * (xyz[..., :2] - [-1.5, 6.0])).astype(np.int32)  # noqa: E731
    for hair in figure.hair:
        fitted = hair.garment.fit(figure.assets.base.vertices)
        triangles = np.concatenate(list(hair.garment.mesh.faces.values()))
        opaque = (opacity(hair.garment)[triangles] > 0.5).all(axis=1)
        front = np.full((900, 600), -np.inf)
        for corners in fitted[triangles[opaque]]:
            mask = np.zeros(front.shape, np.uint8)
            x, y = pixels(corners).min(axis=0)
            if not (0 <= x < 600 and 0 <= y < 900):
                continue
            cv2.fillConvexPoly(mask, pixels(corners), 1)
            front[mask > 0] = np.maximum(front[mask > 0], corners[:, 2].mean())
        column, row = pixels(points).T
        hidden = (front[row, column] > points[:, 2]).mean()
        assert hair.fringe == pytest.approx(hidden, abs=0.05), hair.garment.name
    assert max(hair.fringe for hair in figure.hair) > 0.3


def test_hair_that_hides_the_face_is_rare(figure):
    """Of eight styles, each as likely as any other, one would be an eighth."""
    hides = {h.garment.texture for h in figure.hair if h.fringe > 0.3}
    people = [make_person(figure, identity, seed=8) for identity in range(150)]
    textures = [part.texture for person in people for part in person.parts if part.texture]
    worn = [texture[1] for texture in textures if texture[0] == "hair"]
    assert len(hides) == 1
    assert len(worn) > 80
    assert 0 < sum(path in hides for path in worn) < 0.09 * len(worn)


def test_a_cut_mesh_ends_on_the_line_where_the_field_is_zero():
    points = np.array([[x, y, 0.0] for y in range(5) for x in range(5)])
    corner = [5 * y + x for y in range(4) for x in range(4)]
    triangles = np.array([t for c in corner for t in ([c, c + 1, c + 5], [c + 1, c + 6, c + 5])])
    cut = cut_mesh(triangles, 2.7 - points[:, 0])
    kept = cut.take(points)
    a, b, c = (kept[cut.triangles[:, k]] for k in range(3))
    assert 0.5 * np.cross(b - a, c - a)[:, 2].sum() == pytest.approx(2.7 * 4)
    assert kept[:, 0].max() == pytest.approx(2.7)


def test_missing_and_damaged_assets_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"base\.obj"):
        read_assets(tmp_path)
    damaged = tmp_path / "damaged.obj"
    damaged.write_text("v 0 0 0\nv 1 zero 0\n")
    with pytest.raises(ValueError, match=r"damaged\.obj, line 2"):
        read_obj(damaged)
