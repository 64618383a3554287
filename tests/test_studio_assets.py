"""MakeHuman's files as they are found: other encodings, rows of every length, damage."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.studio.assets import VERTICES_OF_HM08, _usable, read_garment, read_obj
from mtnet_jax.errors import BadInput

OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
HEADER = "name a\nobj_file a.obj\nx_scale 0 1 2.0\ny_scale 0 2 1.0\nz_scale 0 3 4.0\nverts 0\n"
ROWS = ("7", "4 5 6 .2 .3 .5 .1 .2 .3", "1 2 3 .5 .25 .25")


def written(folder: Path, rows=ROWS, header=HEADER, obj=OBJ, **files: bytes) -> Path:
    """A .mhclo with its mesh, and more files beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "a.obj").write_bytes(obj.encode("latin-1"))
    (folder / "a.mhclo").write_bytes((header + "\n".join(rows)).encode("latin-1"))
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder / "a.mhclo"


def fitted(base: np.ndarray) -> np.ndarray:
    """The vertices of `ROWS` by MakeHuman's rule: a row without an offset has offset 0."""
    scale = np.abs([base[0, 0] - base[1, 0], base[0, 1] - base[2, 1], base[0, 2] - base[3, 2]]) / [
        2.0,
        1.0,
        4.0,
    ]
    return np.array(
        [
            base[7],
            0.2 * base[4] + 0.3 * base[5] + 0.5 * base[6] + scale * [0.1, 0.2, 0.3],
            0.5 * base[1] + 0.25 * base[2] + 0.25 * base[3],
        ]
    )


def test_rows_of_every_length_are_fitted(tmp_path):
    base = np.random.default_rng(0).normal(size=(VERTICES_OF_HM08, 3))
    garment = read_garment(written(tmp_path), textured=False)
    np.testing.assert_allclose(garment.fit(base), fitted(base), rtol=1e-12)


@pytest.mark.parametrize("kind", ["mhclo", "obj", "mhmat"])
def test_comments_and_names_of_another_encoding_are_read(tmp_path, kind):
    """One byte of Latin-1 is no UTF-8."""
    note = "# créé par Zoé\n"
    mhmat = (note if kind == "mhmat" else "") + "diffuseTexture \ndiffuseTexture b.png\n"
    path = written(
        tmp_path,
        header=(note if kind == "mhclo" else "") + HEADER.replace("name a", "name Zoé"),
        obj=(note if kind == "obj" else "") + OBJ,
        a_mhmat=mhmat.encode("latin-1"),
        a_png=b"not this one",
        b_png=b"",
    )
    garment = read_garment(path)
    assert garment.texture == tmp_path / "b.png"
    assert len(garment.mesh.vertices) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ("7", "4 x 6 .2 .3 .5 0 0 0", "1")}, "a.mhclo, line 8: .*convert.*'x'"),
        ({"rows": ("7", "4 5 6 .2 nan .5 0 0 0", "1")}, "line 8: expected 9 finite numbers"),
        ({"rows": ("7", "8", "1 2 3 .5 .25")}, "line 9: 5 numbers, expected a vertex, or three"),
        ({"rows": ("7", "8", "1 2 3 .5 .25 .25 0 0")}, r"line 9: 8 numbers, .*\(9\).*\(6\)"),
        ({"rows": ("7", "8", str(VERTICES_OF_HM08))}, "a.mhclo names the vertex 19158, the base"),
        ({"rows": ()}, "a.mhclo fits 0 vertices, its mesh has 3"),
        ({"rows": (), "obj": ""}, "a.mhclo fits 0 vertices, its mesh has 0"),
        ({"header": HEADER.replace("0 1 2.0", "0 19158 2.0")}, "names the vertex 19158"),
        ({"header": HEADER.replace("0 1 2.0", "0 one 2.0")}, "a field is missing or damaged"),
        ({"obj": OBJ.replace("v 1 0 0", "v 1 0")}, "a.obj, line 2: cannot read 'v 1 0'"),
        ({"obj": OBJ.replace("f 1 2 3", "f 1 2 4")}, "a.obj: a face names a point"),
        ({"obj": OBJ.replace("f 1 2 3", "f -1 -2 -3")}, "a.obj: a face names a point"),
    ],
)
def test_damaged_garments_are_named_and_left_out(tmp_path, capsys, changes, message):
    good, bad = written(tmp_path / "good"), written(tmp_path / "bad", **changes)
    with pytest.raises(BadInput, match=message):
        read_garment(bad, textured=False)
    found = list(_usable([bad, good], textured=False))
    assert [len(garment.anchors) for garment in found] == [3]
    assert capsys.readouterr().err.startswith(f"left out of the assets: {bad.parent}")


def test_a_base_mesh_of_another_encoding_is_read(tmp_path):
    (tmp_path / "base.obj").write_bytes("# créé\n".encode("latin-1") + OBJ.encode())
    assert read_obj(tmp_path / "base.obj").vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
