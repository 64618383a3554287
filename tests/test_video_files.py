"""Files as players show them: mirrored ones, those of odd names, several images in one file."""

from pathlib import Path

import av
import numpy as np
import pytest

from mtnet_jax.predict.video_files import VideoReader

IDENTITY = (1, 0, 0, 1)


def corners(width: int, height: int) -> np.ndarray:
    """(height, width, 3) RGB, whose four corners are of four greys."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[height // 2 :, : width // 2] = 200, 100
    image[: height // 2, width // 2 :] = 50
    return image


def write_clip(path: Path, image: np.ndarray, frames: int = 1, code: str = "libx264") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(code, rate=25)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def images_of(path: Path | str) -> list[np.ndarray]:
    reader = VideoReader(path)
    images = [image for image, _ in reader]
    assert reader.lacks() == ""
    reader.close()
    return images


def matrix_bytes(a: int, b: int, c: int, d: int) -> bytes:
    """The matrix of an mp4's track header: (x, y) is shown at (ax + cy, bx + dy)."""
    one, last = 1 << 16, 1 << 30
    return np.array([a * one, b * one, 0, c * one, d * one, 0, 0, 0, last], ">i4").tobytes()


def shown(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """The image pixel by pixel where the matrix says, moved to begin at 0."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    column, row = a * x + c * y, b * x + d * y
    column, row = column - column.min(), row - row.min()
    out = np.zeros((row.max() + 1, column.max() + 1, 3), np.uint8)
    out[row, column] = image
    return out


@pytest.mark.parametrize(
    "matrix",
    [
        *(IDENTITY, (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0)),  # turned
        *((-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)),  # mirrored, and turned
    ],
)
def test_images_are_turned_and_mirrored_as_the_file_says(tmp_path, matrix):
    image = corners(64, 48)
    path = write_clip(tmp_path / "clip.mp4", image)
    data = path.read_bytes()
    place = data.index(matrix_bytes(*IDENTITY), data.index(b"tkhd"))  # of the track, not the movie
    stated = matrix_bytes(*matrix)
    path.write_bytes(data[:place] + stated + data[place + len(stated) :])
    (found,) = images_of(path)
    expected = shown(image, *matrix)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 2


def test_a_name_with_a_colon_is_that_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_clip(tmp_path / "2024-05-01T12:30:00.mp4", corners(64, 48))
    assert len(images_of(Path(path.name))) == 1
