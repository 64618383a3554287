"""Colour changes against a slow loop over pixels, and what random maps are made of."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from mtnet_jax.data.augment import (
    AugmentOptions,
    change_colour,
    check_options,
    random_map,
)
from tests.augmentation import NO_AUGMENTATION


class Scripted:
    """A random generator that gives a fixed place in each range, and no chance below 1."""

    def __init__(self, place: float):
        self._place = place

    def uniform(self, low: float, high: float, count: int | None = None):
        value = low + self._place * (high - low)
        return value if count is None else np.full(count, value)

    def random(self) -> float:
        return 0.999


def slow_colour(image: np.ndarray, place: float, options: AugmentOptions) -> np.ndarray:
    """Hue and saturation about the grey axis, contrast about the mean, brightness: by pixels."""

    def value(reach: float) -> float:
        return -reach + place * 2 * reach

    turn = Rotation.from_rotvec(2 * np.pi * value(options.hue) * np.ones(3) / np.sqrt(3))
    saturation = 0.0 if options.grey == 1 else 1 + value(options.saturation)
    mean = image.astype(float).mean()
    out = np.zeros_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            rgb = turn.apply(image[y, x].astype(float))
            grey = rgb.mean()
            rgb = grey + saturation * (rgb - grey)
            rgb = mean + (1 + value(options.contrast)) * (rgb - mean)
            rgb = (1 + value(options.brightness)) * rgb
            out[y, x] = np.clip(np.rint(rgb), 0, 255)
    return out


COLOURS = {
    "brightness": {"brightness": 0.3},
    "contrast": {"contrast": 0.5},
    "saturation": {"saturation": 0.8},
    "hue": {"hue": 0.1},
    "grey": {"grey": 1.0},
    "all": {"brightness": 0.2, "contrast": 0.4, "saturation": 0.5, "hue": 0.05},
}


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", COLOURS)
def test_colour_against_a_loop_over_pixels(rng, name, place):
    options = NO_AUGMENTATION._replace(**COLOURS[name])
    image = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    changed = change_colour(Scripted(place), image, options)
    assert changed.dtype == np.uint8
    expected = slow_colour(image, place, options)
    # OpenCV computes 8-bit images in fixed point: now and then one level off.
    error = np.abs(changed.astype(int) - expected)
    assert error.max() <= 1
    assert error.mean() < 0.15


def test_options_at_zero_change_nothing(rng):
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for _ in range(5):
        np.testing.assert_array_equal(change_colour(rng, image, NO_AUGMENTATION), image)
        np.testing.assert_allclose(random_map(rng, 96, NO_AUGMENTATION), np.eye(2, 3), atol=1e-12)


def test_a_grey_image_has_equal_channels(rng):
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    changed = change_colour(rng, image, NO_AUGMENTATION._replace(grey=1.0)).astype(int)
    assert np.ptp(changed, axis=2).max() <= 1
    np.testing.assert_allclose(changed.mean(axis=2), image.mean(axis=2), atol=1)


@pytest.mark.parametrize("most", [0.8, 4.0, 60.0])
def test_noise_has_the_deviation_it_says(most):
    """Weak noise is not lost to rounding, strong noise does not wrap, and none shifts the mean."""
    image = np.full((128, 128, 3), 128, np.uint8)
    options = NO_AUGMENTATION._replace(noise=most)
    for seed in range(8):
        changed = change_colour(np.random.default_rng(seed), image, options).astype(float)
        level = _drawn_level(seed, most)
        rounded = np.sqrt(level**2 + 1 / 12)  # the deviation of rounding, where level is not tiny
        if level > 0.5:
            assert changed.std() == pytest.approx(rounded, rel=0.1)
        assert abs(changed.mean() - 128) < 0.05 * most + 0.01


def _drawn_level(seed: int, most: float) -> float:
    """What the generator gives as noise level: the last number before the noise itself."""
    rng = np.random.default_rng(seed)
    rng.random(6)  # brightness, contrast, saturation, grey, hue, blur
    return rng.random() * most


def test_noise_is_normal_and_each_value_is_its_own():
    """Against the normal distribution; neighbours, channels and images do not go together."""
    image = np.full((128, 128, 3), 128, np.uint8)
    rng = np.random.default_rng(5)
    options = NO_AUGMENTATION._replace(noise=40.0)
    images = [change_colour(rng, image, options).astype(float) - 128 for _ in range(6)]
    standard = [p / p.std() for p in images if p.std() > 8]
    assert len(standard) >= 3
    for values in standard:
        places = np.linspace(-2, 2, 9)
        shares = [(values < place).mean() for place in places]
        np.testing.assert_allclose(shares, norm.cdf(places), atol=0.03)
        for other in (values[1:], values[:, 1:], values[..., 1:]):
            part = values[tuple(slice(0, n) for n in other.shape)]
            assert abs(np.corrcoef(part.ravel(), other.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(standard[0].ravel(), standard[1].ravel())[0, 1]) < 0.03


def test_noise_saturates(rng):
    for level in (0, 255):
        image = np.full((64, 64, 3), level, np.uint8)
        changed = change_colour(rng, image, NO_AUGMENTATION._replace(noise=50.0)).astype(int)
        assert np.abs(changed - level).max() < 255  # nothing wrapped from black to white


def test_blur_smooths_and_keeps_the_mean(rng):
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    blurred = change_colour(rng, image, NO_AUGMENTATION._replace(blur=1.0))
    assert blurred.std() < 0.8 * image.std()
    assert blurred.mean() == pytest.approx(image.mean(), abs=2)


# --- fewer pixels and compression ----------------------------------------------------------------


class Listed:
    """A random generator that writes down what it is asked for."""

    def __init__(self, rng: np.random.Generator):
        self._rng, self.calls = rng, []

    def __getattr__(self, name: str):
        def call(*args):
            self.calls.append((name, args))
            return getattr(self._rng, name)(*args)

        return call


def test_without_coarse_jpeg_and_light_the_random_numbers_are_those_of_before():
    """What these options ask for at 0 is nothing, so images of a seed stay what they were."""
    rng = Listed(np.random.default_rng(3))
    image = np.full((8, 8, 3), 99, np.uint8)
    change_colour(rng, image, AugmentOptions(blur=0.0))
    assert rng.calls == [
        ("uniform", (-0.3, 0.3)),  # brightness
        ("uniform", (-0.3, 0.3)),  # contrast
        ("uniform", (-0.4, 0.4)),  # saturation
        ("random", ()),  # grey
        ("uniform", (-0.03, 0.03)),  # hue
        ("random", ()),  # blur
        ("uniform", (0, 4.0)),  # level of the noise
        ("integers", (2**63,)),  # seed of the noise
    ]


@pytest.mark.parametrize("name", ["coarse", "jpeg"])
@pytest.mark.parametrize("shape", [(61, 80), (64, 64), (7, 3), (1, 1)])
def test_coarse_and_jpeg_change_pixels_and_keep_the_image(rng, name, shape):
    """Red is strongest and blue weakest before and after: no channels change places."""
    image = rng.integers(0, 90, (*shape, 3), dtype=np.uint8) + np.array([150, 80, 0], np.uint8)
    untouched = image.copy()
    changed = change_colour(rng, image, NO_AUGMENTATION._replace(**{name: 1.0}))
    np.testing.assert_array_equal(image, untouched)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    if image.size > 100:
        assert (changed != image).mean() > 0.3
        before, after = image.mean(axis=(0, 1)), changed.mean(axis=(0, 1))
        np.testing.assert_allclose(after, before, atol=6)


def test_coarse_images_have_lost_their_detail_and_nothing_else(rng):
    """Of a wave of 2 pixels little is left, one of 32 stays."""
    columns = np.arange(128)
    options = NO_AUGMENTATION._replace(coarse=1.0)
    left = {}
    for period in (2, 32):
        wave = 128 + 100 * np.cos(2 * np.pi * columns / period)
        image = np.broadcast_to(wave[None, :, None], (128, 128, 3)).astype(np.uint8)
        changed = [change_colour(rng, image, options)[20:-20, 20:-20] for _ in range(10)]
        left[period] = np.array([each.std() / image[20:-20, 20:-20].std() for each in changed])
    assert left[2].max() < 0.5
    assert left[32].min() > 0.85


@pytest.mark.parametrize("shape", [(48, 64), (64, 20), (1, 1)])
def test_light_falls_from_one_side_and_keeps_the_colour(rng, shape):
    """On one colour: brighter or darker along rows and columns alike, from a shadow to the dark."""
    colour = np.array([150, 100, 50])
    image = np.broadcast_to(colour, (*shape, 3)).astype(np.uint8)
    options = NO_AUGMENTATION._replace(light=1.0)
    steps, factors = [], []
    for _ in range(300):
        factor = change_colour(rng, image, options) / colour
        np.testing.assert_allclose(factor, factor[..., :1] * np.ones(3), atol=0.02)  # grey levels
        for axis in (0, 1):
            step = np.diff(factor[..., 0], axis=axis)
            assert (step <= 0).all() or (step >= 0).all()
            steps.append(np.abs(step).max(initial=0))
        factors += [factor.min(), factor.max()]
    assert 0.14 < min(factors) < 0.3
    assert 1.2 < max(factors) < 1.31
    if min(shape) > 10:
        assert max(steps) > 0.3  # the edge of a shadow
        assert np.median(steps) < 0.1


@pytest.mark.parametrize("name", ["coarse", "jpeg", "light"])
def test_coarse_jpeg_and_light_come_as_often_as_they_say(rng, name):
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    options = NO_AUGMENTATION._replace(**{name: 0.3})
    changed = [(change_colour(rng, image, options) != image).any() for _ in range(600)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.06)


def test_the_same_seed_gives_the_same_image():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    options = AugmentOptions(blur=0.5, grey=0.5, coarse=0.5, jpeg=0.5, light=0.5)

    def change(seed):
        return change_colour(np.random.default_rng(seed), image.copy(), options)

    np.testing.assert_array_equal(change(3), change(3))
    assert (change(3) != change(4)).any()


def test_maps_stay_within_the_options(rng):
    """Scale, turn, shift and flips read back from many maps of one square image."""
    size = 100
    options = AugmentOptions(flip=0.25, turn=20.0, scale_min=0.5, scale_max=2.0, shift=0.3)
    maps = np.array([random_map(rng, size, options) for _ in range(2000)])
    flips = np.linalg.det(maps[:, :, :2]) < 0
    assert flips.mean() == pytest.approx(0.25, abs=0.04)

    scale = np.sqrt(np.abs(np.linalg.det(maps[:, :, :2])))
    assert scale.min() > 0.5 - 1e-9
    assert scale.max() < 2 + 1e-9
    assert np.log(scale).mean() == pytest.approx(0, abs=0.05)  # log-uniform between 1/2 and 2

    unflipped = maps[~flips]
    turn = np.rad2deg(np.arctan2(unflipped[:, 1, 0], unflipped[:, 0, 0]))
    assert np.abs(turn).max() <= 20
    assert np.abs(turn).max() > 19
    assert turn.mean() == pytest.approx(0, abs=1)

    # Scale, turn and flip are about the middle, so it only shifts.
    moved = maps @ [size / 2, size / 2, 1] - size / 2
    assert np.abs(moved).max() <= 30 + 1e-9
    assert np.abs(moved).max() > 29


def test_a_share_is_turned_by_any_angle(rng):
    options = NO_AUGMENTATION._replace(turn=20.0, lying=0.3)
    maps = np.array([random_map(rng, 100, options) for _ in range(2000)])
    turn = np.rad2deg(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert (np.abs(turn) > 20).mean() == pytest.approx(0.3 * 160 / 180, abs=0.04)
    for low in (-180, -90, 0, 90):  # no quarter of the circle is left out
        assert ((turn > low) & (turn < low + 90) & (np.abs(turn) > 20)).mean() > 0.04


@pytest.mark.parametrize(
    "bad",
    [
        {"flip": 1.5},
        {"flip": -0.1},
        {"turn": -1.0},
        {"scale_min": 0.0},
        {"scale_min": 2.0, "scale_max": 1.0},
        {"brightness": 1.2},
        {"noise": float("nan")},
        {"coarse": 1.1},
        {"light": -0.1},
        {"jpeg": -0.1},
        {"lying": 1.1},
    ],
)
def test_options_out_of_range_are_named(bad):
    name = next(iter(bad))
    with pytest.raises(ValueError, match=rf"config\.augment\.{name} is "):
        check_options(AugmentOptions()._replace(**bad))


def test_usual_options_are_in_range():
    check_options(AugmentOptions())
    check_options(NO_AUGMENTATION)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
