"""Suits and hats of MakeHuman on the studio's people."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("vtkmodules", reason="mtnet studio is an extra: pip install -e '.[studio]'")

from data_prep.studio import people, suits, wear
from data_prep.studio.assets import read_assets, read_garment
from data_prep.studio.figure import LANDMARKS, make_figure
from data_prep.studio.people import make_person
from data_prep.studio.suits import hat, hats, suit, suits_for

BROW, CHIN = LANDMARKS[19], LANDMARKS[8]


@pytest.fixture(scope="module")
def dressed(data_dir, assets_dir, tmp_path_factory):
    """The base figure of a folder of assets that has clothes."""
    clothes = data_dir / "makehuman_more" / "clothes"
    if not clothes.is_dir():
        pytest.skip(f"no clothes of MakeHuman at {clothes}")
    folder = tmp_path_factory.mktemp("assets")
    for part in assets_dir.iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "clothes").symlink_to(clothes)
    return make_figure(read_assets(folder))


def test_suits_lie_on_the_body_and_hide_its_skin(dressed):
    """Of each: its points are within a hand of the skin, and what it hides is below the chin."""
    shape = dressed.vertices
    every = suits_for(dressed, "child")
    assert len(every) == 12
    for garment in every:
        piece, hidden = suit(garment, shape, np.random.default_rng(0))
        some = piece.points[:: max(1, len(piece.points) // 200)]
        gaps = np.linalg.norm(some[:, None] - shape[None, :13380], axis=-1).min(axis=1)
        assert np.quantile(gaps, 0.9) < 0.5, garment.name  # dm
        assert hidden.sum() > 1000
        skin = np.flatnonzero(hidden[: dressed.triangles.max() + 1])
        assert shape[skin, 1].max() < shape[CHIN, 1], garment.name
        assert not piece.head_share.any()


def test_hats_lie_on_the_skull_and_follow_the_head(dressed):
    (first, *_) = every = hats(dressed)
    assert [garment.name for garment in every] == ["fedora", "fedora_cocked"]
    shape = dressed.vertices
    (piece,), plane = hat(first, shape, np.random.default_rng(0))
    assert piece.head_share.min() == 1
    skull = shape[dressed.outline]
    assert piece.points[:, 1].min() > shape[BROW, 1] - 0.2
    assert skull[:, 1].max() < piece.points[:, 1].max() < skull[:, 1].max() + 1
    assert abs(piece.points[:, 0].mean()) < 0.05
    assert plane[0] > shape[BROW, 1]


def test_who_wears_what(dressed):
    names = {kind: {g.name for g in suits_for(dressed, kind)} for kind in ("male", "female")}
    assert not any("female" in name for name in names["male"])
    assert not any(name.startswith("male_casual") for name in names["female"])
    assert "male_worksuit01" in names["male"] & names["female"]  # has neither tag


def test_each_piece_of_cloth_has_one_colour(dressed):
    """A triangle never has two, but at the waist of what is top and trousers in one."""
    for garment in suits_for(dressed, "child"):
        piece, _ = suit(garment, dressed.vertices, np.random.default_rng(3))
        corners = piece.colours[piece.triangles]
        mixed = piece.triangles[(corners != corners[:, :1]).any(axis=(1, 2))]
        assert (abs(piece.points[mixed, 1] - 0.9) < 1).all(), garment.name
        assert 1 < len(np.unique(piece.colours, axis=0)) < 40, garment.name


def test_people_wear_suits_and_the_plain_clothes(dressed, monkeypatch):
    worn = Counter()
    for module, name in ((suits, "suit"), (wear, "clothes"), (suits, "hat"), (wear, "headgear")):
        monkeypatch.setattr(module, name, counted(worn, name, getattr(module, name)))
    made = [make_person.__wrapped__(dressed, identity, 4) for identity in range(60)]
    assert all(np.isfinite(part.points).all() for person in made for part in person.parts)
    assert worn["suit"] + worn["clothes"] == 60
    assert 24 < worn["suit"] < 48  # six in ten
    assert 0 < worn["hat"] < worn["headgear"]


def counted(counts, name, function):
    def call(*args):
        counts[name] += 1
        return function(*args)

    return call


def test_hats_belong_to_the_outline_of_the_head(dressed, monkeypatch):
    """The outline of who wears one is as high as the hat, which stands off the bald skull."""
    tops = []
    for headgear in (0.0, 1.0):
        monkeypatch.setattr(people, "_HEADGEAR", headgear)
        monkeypatch.setattr(people, "_HAT", 1.0)
        monkeypatch.setattr(people, "_BALD", 1.0)
        made = make_person.__wrapped__(dressed, 3, 4)
        tops.append(made.outline[:, 1].min())  # y down
    assert tops[1] < tops[0] - 0.015


def test_shoes_are_no_suit(dressed):
    """A garment that is fitted to the feet alone."""
    shoes = np.flatnonzero(dressed.vertices[:13380, 1] < -7)[:50]
    garment = dataclasses.replace(
        suits_for(dressed, "child")[0], anchors=shoes[:, None] + [0, 0, 0]
    )
    assets = dataclasses.replace(dressed.assets, clothes=(garment,))
    assert suits_for(dataclasses.replace(dressed, assets=assets), "child") == []


def test_ranges_of_hidden_vertices_are_read(dressed):
    garment = next(g for g in dressed.assets.clothes if g.name == "male_worksuit01")
    covers = set(garment.covers.tolist())
    assert covers >= set(range(1355, 1460)) | {1465, 3871}
    assert not covers & {1354, 1460, 1464, 3850, 3870, 3872}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("verts 0\n", "verts 0\n1 2 3 .3 .3 .4 0 0 0\n", r"\.mhclo fits \d+ vertices"),
        ("delete_verts", "delete_verts\n3-9\n", r"\.mhclo: a field is missing or damaged"),
        ("delete_verts", "delete_verts\n- 9\n", r"\.mhclo: a field is missing or damaged"),
    ],
)
def test_a_damaged_suit_is_named(dressed, tmp_path, old, new, message):
    folder = dressed.assets.folder / "clothes" / "male_worksuit01"
    for path in folder.iterdir():
        text = path.read_text()
        cut = text.replace(old, new, 1)
        (tmp_path / path.name).write_text(cut if path.suffix == ".mhclo" else text)
    with pytest.raises(ValueError, match="male_worksuit01" + message):
        read_garment(tmp_path / "male_worksuit01.mhclo", textured=False)
