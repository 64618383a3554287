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


@pytest.fixture
def published(assets_dir, tmp_path):
    """The assets as MakeHuman and its packs lay them out."""
    folder = tmp_path / "makehuman"

    def link(place: str, source) -> None:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(source)

    link("3dobjs", assets_dir / "3dobjs")
    for kind in ("mhclo", "obj"):
        link(f"eyes/low-poly/low-poly.{kind}", assets_dir / f"eyes/low-poly.{kind}")
    link("eyes/materials/brown_eye.png", assets_dir / "eyes/brown_eye.png")
    link("skins/textures", assets_dir / "skins")
    link("hair/bob01", assets_dir / "hair/bob01")
    for kind in ("mhclo", "obj"):
        link(f"hair/afro01/afro01.{kind}", assets_dir / f"hair/afro01/afro01.{kind}")
    link("hair/afro01/materials/diffuse.png", assets_dir / "hair/afro01/afro_diffuse.png")
    link("hair/afro01/materials/a_normal.png", assets_dir / "hair/bob01/bob01_diffuse.png")
    return folder


def test_assets_as_they_are_published(assets_dir, published, capsys):
    found, expected = read_assets(published), read_assets(assets_dir)
    assert [path.name for path in found.skins] == [path.name for path in expected.skins]
    assert [path.name for path in found.eye_textures] == ["brown_eye.png"]
    np.testing.assert_array_equal(found.eyes.anchors, expected.eyes.anchors)
    textures = {garment.name: garment.texture.name for garment in found.hair}
    assert textures == {"afro01": "diffuse.png", "bob01": "bob01_diffuse.png"}
    assert not capsys.readouterr().err


def test_assets_are_taken_in_a_fixed_order(assets_dir):
    """People are drawn by their places in these lists: the same seed, the same people."""
    assets = read_assets(assets_dir)
    assert list(assets.skins) == sorted(assets_dir.glob("skins/*.jpg"))
    assert list(assets.eye_textures) == sorted(assets_dir.glob("eyes/*.png"))
    meshes = sorted(assets_dir.glob("hair/*/*.mhclo"))
    assert [garment.name for garment in assets.hair] == [path.stem for path in meshes]


def test_hair_that_cannot_be_drawn_is_left_out(published, capsys):
    (published / "hair/afro01/afro01.obj").unlink()
    assert [garment.name for garment in read_assets(published).hair] == ["bob01"]
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("left out of the assets: ")
    assert "afro01.obj (the mesh of afro01.mhclo) is missing" in said
    (published / "hair/bob01").unlink()
    with pytest.raises(FileNotFoundError, match=r"No hair in .* can be used"):
        read_assets(published)
