"""Reads record sets as any TensorFlow program would. Run by tests/test_tensorflow_reads.py.

    PYTHON tests/tensorflow_reader.py OUT.npz DIR [DIR ...]

PYTHON is that of an environment with requirements-tensorflow-test.txt; nothing of this project is
imported. Every field of every record of every split is written as DIR/SPLIT/WAY/RECORD/FIELD:
as `tfds.builder_from_directory` gives it (way "builder"), as `tfds.load` does by the set's name
("load", where DIR ends in NAME/VERSION), and as `tf.data.TFRecordDataset` with
`tf.io.parse_single_example` does ("parse"). The builder and parse also give the image as it is
encoded. A way that ends in a `DataLossError` gives its message as DIR/SPLIT/WAY/error.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# What a reader needs to know of the schema (docs/data.md).
FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "image_id": tf.io.FixedLenFeature([], tf.string),
    "source": tf.io.FixedLenFeature([], tf.string),
    "boxes": tf.io.FixedLenSequenceFeature([4], tf.float32, allow_missing=True),
    "rotations": tf.io.FixedLenSequenceFeature([3, 3], tf.float32, allow_missing=True),
    "has_pose": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "ignore": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "labels": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "headings": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
    "has_heading": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "intrinsics": tf.io.FixedLenFeature([4], tf.float32, [0.0] * 4),
}


def with_builder(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[dict]:
    whole = builder.as_dataset(split=split)
    encoded = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    for record, raw in zip(whole, encoded, strict=True):
        yield {**record, "encoded": raw["image"]}


def with_load(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[dict]:
    name, version = builder.info.name, str(builder.info.version)
    above = Path(builder.data_dir).parent.parent
    yield from tfds.load(f"{name}:{version}", split=split, data_dir=above, download=False)


def with_parse(builder: tfds.core.DatasetBuilder, split: str) -> Iterator[dict]:
    files = [str(path) for path in builder.info.splits[split].filepaths]
    for data in tf.data.TFRecordDataset(files):
        record = tf.io.parse_single_example(data, FEATURES)
        pixels = decode_accurately(record["image"])
        yield {**record, "encoded": record["image"], "image": pixels}


def decode_accurately(encoded: tf.Tensor) -> tf.Tensor:
    """The image; tfds and `tf.io.decode_image` take a quicker, coarser JPEG transform."""
    if tf.io.is_jpeg(encoded):
        return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.io.decode_image(encoded, channels=3)


def as_array(value: tf.Tensor) -> np.ndarray:
    value = value.numpy()
    # Bytes as numbers: NumPy's strings lose zeros at the end.
    return np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value


def main(out: str, *folders: str) -> None:
    arrays = {}
    for folder in folders:
        builder = tfds.builder_from_directory(folder)
        ways = {"builder": with_builder, "parse": with_parse}
        if Path(folder).parts[-2:] == (builder.info.name, str(builder.info.version)):
            ways["load"] = with_load
        for split in builder.info.splits:
            for way, read in ways.items():
                prefix = f"{folder}/{split}/{way}"
                try:
                    for number, record in enumerate(read(builder, split)):
                        for field, value in record.items():
                            arrays[f"{prefix}/{number}/{field}"] = as_array(value)
                except tf.errors.DataLossError as error:
                    arrays[f"{prefix}/error"] = np.frombuffer(error.message.encode(), np.uint8)
    # Not np.savez: it would make folders of the slashes and take file names as its arguments.
    np.save(out, arrays, allow_pickle=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
