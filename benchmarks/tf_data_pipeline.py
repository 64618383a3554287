"""The input pipeline with tf.data, for benchmarks/input_pipeline.py. Runs where TensorFlow is.

    PYTHON benchmarks/tf_data_pipeline.py SETTINGS

SETTINGS is JSON: files, size, batch, max_heads, seed, workers, options (of AugmentOptions). Reads
numbers from stdin, a line each; takes so many batches and answers "done". Nothing of this project
is imported.

The work is that of mtnet_jax/data/batches.py with TensorFlow's own operations: a JPEG is decoded at
a half, a quarter, an eighth where that is enough, one projective transform (bilinear) moves the
image, one matrix changes its colours, a tenth of the images are blurred, and normal noise is
added. Random numbers are stateless, of the seed and the record's place in the stream. Records come
from a shuffle buffer of 1,024, not from a shuffle of all.
"""

import json
import math
import sys

import tensorflow as tf

FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "boxes": tf.io.FixedLenSequenceFeature([4], tf.float32, allow_missing=True),
    "rotations": tf.io.FixedLenSequenceFeature([3, 3], tf.float32, allow_missing=True),
    "has_pose": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "ignore": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "labels": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "headings": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
    "has_heading": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
}
BORDER_GREY = 114.0
MIN_VISIBLE = 0.4
SHUFFLE_BUFFER = 1024


def matrix(rows: list) -> tf.Tensor:
    return tf.stack([tf.stack([tf.cast(v, tf.float32) for v in row]) for row in rows])


def shift(dx, dy) -> tf.Tensor:
    return matrix([[1, 0, dx], [0, 1, dy], [0, 0, 1]])


def scale(factor) -> tf.Tensor:
    return matrix([[factor, 0, 0], [0, factor, 0], [0, 0, 1]])


def decode(encoded: tf.Tensor, shrink: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The image at 1, 1/2, 1/4 or 1/8 of its size, and the factor."""
    level = tf.cast(
        tf.math.floor(tf.math.log(tf.clip_by_value(shrink, 1, 8.5)) / math.log(2)), tf.int32
    )

    def at(ratio):
        return lambda: tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)

    return tf.switch_case(level, [at(1), at(2), at(4), at(8)]), 2.0 ** tf.cast(level, tf.float32)


def augment(index, data, *, size, max_heads, seed, options):
    """One record, changed at random and padded."""
    record = tf.io.parse_single_example(data, FEATURES)
    draw = tf.random.stateless_uniform([14], seed=[seed, index])

    def uniform(i, low, high):
        return low + (high - low) * draw[i]

    # The map: letterbox, flip, scale, turn and shift.
    shape = tf.cast(tf.io.extract_jpeg_shape(record["image"]), tf.float32)
    height, width = shape[0], shape[1]
    letterbox = size / tf.maximum(width, height)
    change = tf.exp(uniform(1, math.log(options["scale_min"]), math.log(options["scale_max"])))
    angle = uniform(2, -options["turn"], options["turn"]) * math.pi / 180
    flip = tf.where(draw[0] < options["flip"], -1.0, 1.0)
    dx, dy = (uniform(i, -options["shift"], options["shift"]) * size for i in (3, 4))
    cos, sin = tf.cos(angle), tf.sin(angle)
    turn = matrix([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    about = shift(size / 2 + dx, size / 2 + dy) @ turn @ scale(change * letterbox)
    move = about @ matrix([[flip, 0, 0], [0, 1, 0], [0, 0, 1]]) @ shift(-width / 2, -height / 2)

    image, factor = decode(record["image"], 1 / (change * letterbox) + 1e-6)
    # From the centres of the input's pixels to those of the decoded image.
    back = shift(-0.5, -0.5) @ tf.linalg.inv(move @ scale(factor)) @ shift(0.5, 0.5)
    image = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image[None], tf.float32),
        transforms=tf.reshape(back, [1, 9])[:, :8],
        output_shape=[size, size],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=BORDER_GREY,
    )[0]
    image = change_colour(image, draw[5:], [seed + 1, index], options)

    # The heads.
    boxes, linear = record["boxes"], move[:2, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ tf.transpose(linear) + move[:2, 2]
    half = tf.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ tf.transpose(linear**2))
    whole = tf.concat([centre - half, centre + half], axis=1)
    clipped = tf.clip_by_value(whole, 0, size)
    area = tf.reduce_prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    visible = area / tf.maximum(tf.reduce_prod(whole[:, 2:] - whole[:, :2], axis=1), 1e-9)
    mirror = matrix([[1, flip, flip], [flip, 1, 1], [flip, 1, 1]])
    has_pose = tf.cast(record["has_pose"], tf.bool)
    rotations = tf.where(has_pose[:, None, None], turn @ (record["rotations"] * mirror), tf.eye(3))
    # Records of before there were headings have none.
    missing = tf.zeros([tf.shape(boxes)[0] - tf.shape(record["headings"])[0]])
    headings = tf.concat([record["headings"], missing], axis=0) * math.pi / 180
    headings = tf.atan2(flip * tf.sin(headings) * cos, tf.cos(headings)) * 180 / math.pi
    has_heading = tf.concat([record["has_heading"], tf.cast(missing, tf.int64)], axis=0) > 0
    heads = {
        "boxes": clipped,
        "rotations": rotations,
        "has_pose": has_pose,
        "ignore": tf.cast(record["ignore"], tf.bool) | (visible < MIN_VISIBLE),
        "labels": tf.cast(record["labels"], tf.int32),
        "headings": tf.where(has_heading, headings, 0.0),
        "has_heading": has_heading,
    }
    inside = tf.where(area > 0)[:, 0]
    order = tf.gather(inside, tf.argsort(-tf.gather(area, inside), stable=True))[:max_heads]
    count = tf.size(order)
    padded = {}
    for name, values in heads.items():
        values = tf.gather(values, order)
        empty = max_heads - count
        padded[name] = tf.pad(values, [[0, empty]] + [[0, 0]] * (len(values.shape) - 1))
        padded[name].set_shape([max_heads, *values.shape[1:]])
    valid = tf.range(max_heads) < count
    padded["rotations"] = tf.where(valid[:, None, None], padded["rotations"], tf.eye(3))
    return {"image": image, **padded, "valid": valid, "dropped": tf.size(inside) - count}


def change_colour(image, draw, seed, options):
    """Colours, blur and noise of a float image; uint8."""

    def factor(i, name):
        return 1 + (2 * draw[i] - 1) * options[name]

    brightness, contrast = factor(0, "brightness"), factor(1, "contrast")
    saturation = tf.where(draw[3] < options["grey"], 0.0, factor(2, "saturation"))
    hue = (2 * draw[4] - 1) * options["hue"] * 2 * math.pi
    grey = tf.fill([3, 3], 1 / 3)
    cross = tf.constant([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], tf.float32) / math.sqrt(3)
    chroma = tf.cos(hue) * (tf.eye(3) - grey) + tf.sin(hue) * cross
    colour = (grey + saturation * chroma) * brightness * contrast
    offset = (1 - contrast) * brightness * tf.reduce_mean(image)
    shape = tf.shape(image)
    image = tf.reshape(tf.reshape(image, [-1, 3]) @ tf.transpose(colour), shape) + offset
    image = tf.cond(draw[5] < options["blur"], lambda: blur(image, 0.5 + draw[6]), lambda: image)
    if options["noise"] > 0:
        image += draw[7] * options["noise"] * tf.random.stateless_normal(shape, seed)
    return tf.cast(tf.round(tf.clip_by_value(image, 0, 255)), tf.uint8)


def blur(image, sigma):
    x = tf.range(-4.0, 5.0)
    weights = tf.exp(-(x**2) / (2 * sigma**2))
    weights = tf.tile((weights / tf.reduce_sum(weights))[:, None, None, None], [1, 1, 3, 1])
    image = tf.pad(image[None], [[0, 0], [4, 4], [4, 4], [0, 0]], "REFLECT")
    for kernel in (weights, tf.transpose(weights, [1, 0, 2, 3])):
        image = tf.nn.depthwise_conv2d(image, kernel, [1, 1, 1, 1], "VALID")
    return image[0]


def batches(settings: dict) -> tf.data.Dataset:
    def change(index, data):
        return augment(
            index,
            data,
            size=settings["size"],
            max_heads=settings["max_heads"],
            seed=settings["seed"],
            options=settings["options"],
        )

    options = tf.data.Options()
    options.threading.private_threadpool_size = settings["workers"]
    options.threading.max_intra_op_parallelism = 1
    return (
        tf.data.TFRecordDataset(settings["files"])
        .shuffle(SHUFFLE_BUFFER, seed=settings["seed"])
        .repeat()
        .enumerate()
        .map(change, num_parallel_calls=settings["workers"], deterministic=True)
        .batch(settings["batch"], drop_remainder=True)
        .prefetch(2)
        .with_options(options)
    )


def main() -> None:
    settings = json.loads(sys.argv[1])
    tf.config.threading.set_intra_op_parallelism_threads(settings["workers"])
    tf.config.threading.set_inter_op_parallelism_threads(settings["workers"])
    iterator = batches(settings).as_numpy_iterator()
    for line in sys.stdin:
        for _ in range(int(line)):
            batch = next(iterator)
            assert batch["image"].shape == (
                settings["batch"],
                settings["size"],
                settings["size"],
                3,
            )
        print("done", flush=True)


if __name__ == "__main__":
    main()
