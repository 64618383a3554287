"""The augmentation that changes nothing, for tests."""

from mtnet_jax.data.augment import AugmentOptions

NO_AUGMENTATION = AugmentOptions(0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0)
