"""The first two layers at half the size, against loops over the pixels."""

import numpy as np

from mtnet_jax.export.stem import Layer, at_half_size, suits


def convolved(image: np.ndarray, layer: Layer) -> np.ndarray:
    """(H, W, I) -> (H', W', O), pixel by pixel."""
    before, after = layer.pads
    padded = np.pad(image, ((before, after), (before, after), (0, 0)))
    height, width = layer.kernel.shape[:2]
    rows = (padded.shape[0] - height) // layer.stride + 1
    columns = (padded.shape[1] - width) // layer.stride + 1
    out = np.empty((rows, columns, len(layer.bias)))
    for i in range(rows):
        for j in range(columns):
            top, left = i * layer.stride, j * layer.stride
            window = padded[top : top + height, left : left + width]
            out[i, j] = np.einsum("hwi,hwio->o", window, layer.kernel) + layer.bias
    return out


def two_layers(features=5, **changes):
    rng = np.random.default_rng(0)
    stem = Layer(rng.normal(size=(3, 3, 3, features)), rng.normal(size=features), 1, (1, 1))
    down = Layer(rng.normal(size=(3, 3, features, 7)), rng.normal(size=7), 2, (1, 1))
    return stem._replace(**changes), down


def test_the_same_values_with_an_activation_between():
    image = np.random.default_rng(1).normal(size=(8, 12, 3))

    def through(layers):
        first = convolved(image, layers[0])
        return convolved(np.where(first > 0, first, 0.1 * first), layers[1])

    halved = at_half_size(*two_layers())
    assert convolved(image, halved[0]).shape == (4, 6, 20)
    np.testing.assert_allclose(through(halved), through(two_layers()), atol=1e-12)


def test_which_layers_it_is_for():
    stem, down = two_layers()
    assert suits(stem, down)
    assert not suits(down, stem)
    assert not suits(*two_layers(features=9))
    assert not suits(stem, down._replace(stride=1))
    assert not suits(stem._replace(kernel=stem.kernel[:1, :1], pads=(0, 0)), down)
