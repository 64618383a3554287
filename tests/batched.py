"""Records and streams of the tests of batches."""

import functools
import json

import cv2
import numpy as np

from mtnet_jax.data.batches import training_batches
from mtnet_jax.data.packing import make_packer
from tests.augmentation import NO_AUGMENTATION


@functools.cache
def plain_image(width: int, height: int) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


def record(boxes, *, width=100, height=80, **fields) -> dict:
    """A record with these boxes and a plain image; everything else plain unless given."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(boxes)
    return {
        "image": plain_image(width, height),
        "boxes": boxes,
        "rotations": np.tile(np.eye(3, dtype=np.float32), (n, 1, 1)),
        "has_pose": np.ones(n, bool),
        "ignore": np.zeros(n, bool),
        "labels": np.arange(n, dtype=np.int32),
        "headings": np.zeros(n, np.float32),
        "has_heading": np.zeros(n, bool),
        "intrinsics": np.zeros(4, np.float32),
        "image_id": "image",
        "source": "test",
        **fields,
    }


class Numbered:
    """A source of small records; the label of the one head is the record's number.

    grain shuffles sets of a few records slowly (milliseconds a record), so these have dozens.
    """

    def __init__(self, count: int, first: int = 0):
        self._numbers = range(first, first + count)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict:
        labels = np.array([self._numbers[index]], np.int32)
        return record([[10, 10, 22, 24]], width=32, height=28, labels=labels)

    def __repr__(self) -> str:
        return f"Numbered({len(self)} records)"


def stream(sources, weights=None, *, pack=None, batch_size=4, seed=3, threads=1, **options):
    arguments = {"size": 32, "max_heads": 2, "options": NO_AUGMENTATION, **options}
    weights = weights or [1.0] * len(sources)
    packer = make_packer(sources, weights, pack, arguments["options"]) if pack else None
    return training_batches(
        sources,
        weights,
        packer=packer,
        batch_size=batch_size,
        seed=seed,
        threads=threads,
        **arguments,
    )


def assert_same(a: list[dict], b: list[dict]) -> None:
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_goes_on(new, done: int) -> None:
    """After so many batches, by the position as JSON; `new` takes the number of threads."""
    batches = new(2)
    for _ in range(done):
        next(batches)
    position = json.loads(json.dumps(batches.get_state()))
    expected = [next(batches) for _ in range(6)]
    again = new(1)
    next(again)
    again.set_state(position)
    assert_same([next(again) for _ in range(6)], expected)
