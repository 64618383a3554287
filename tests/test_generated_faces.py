"""Faces cut out of sheets: where they stand, and that each is taken once."""

import cv2
import numpy as np

from benchmarks import generated_faces

SIDE, GAP, TITLE = 240, 20, 60


def a_sheet(images: list[list[np.ndarray]]) -> np.ndarray:
    """Images in rows on black, with writing above each row, as the dataset draws them."""
    rows, columns = len(images), len(images[0])
    shape = (TITLE + rows * (SIDE + TITLE), GAP + columns * (SIDE + GAP), 3)
    sheet = np.zeros(shape, np.uint8)
    for row, of_row in enumerate(images):
        top = TITLE + row * (SIDE + TITLE)
        white = (255, 255, 255)
        cv2.putText(sheet, "'smiling' image_0001.jpg", (GAP, top - 20), 0, 0.6, white)
        for column, image in enumerate(of_row):
            left = GAP + column * (SIDE + GAP)
            sheet[top : top + SIDE, left : left + SIDE] = image
    return sheet


def images(number: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 256, (number, 6, 6, 3), np.uint8)
    return [cv2.resize(each, (SIDE, SIDE)) for each in small]


def test_each_image_of_a_sheet_is_cut_out_whole():
    six = images(6)
    found = generated_faces.images_of(a_sheet([six[:3], six[3:]]))
    assert [each[:2] for each in found] == [(r, c) for r in range(2) for c in range(3)]
    for image, (_, _, cut) in zip(six, found, strict=True):
        np.testing.assert_array_equal(cut, image)


def test_an_image_on_two_sheets_is_taken_once_where_it_is_largest(tmp_path, monkeypatch, capsys):
    figures = tmp_path / "figures"
    figures.mkdir()
    four = images(4)
    smaller = cv2.resize(a_sheet([four[:2], four[2:]]), None, fx=0.9, fy=0.9)
    cv2.imwrite(str(figures / "textual_search_a.jpg"), smaller)
    cv2.imwrite(str(figures / "textual_search_b.jpg"), a_sheet([four[1:3], images(2, seed=1)]))
    monkeypatch.setattr("sys.argv", ["x", "--raw", str(tmp_path), "--out", str(tmp_path / "out")])
    generated_faces.main()
    written = {path.stem: cv2.imread(str(path)) for path in (tmp_path / "out").rglob("*.png")}
    assert sorted(written) == ["a_0_0", "a_1_1", "b_0_0", "b_0_1", "b_1_0", "b_1_1"]
    assert len(written["b_0_0"]) > len(written["a_0_0"])
    assert "8 images, 2 seen before" in capsys.readouterr().out
