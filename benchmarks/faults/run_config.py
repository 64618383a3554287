"""Three phases of a network of eight channels on rendered people: seconds on a CPU."""

from ml_collections import ConfigDict

from mtnet_jax.config import default_config, phase, record_set
from mtnet_jax.shipped import shipped

EVERYTHING = ("backbone", "neck", "face", "pose")


def get_config() -> ConfigDict:
    """Saved every second step, logged at each, evaluated at the middle and the end of a phase."""
    config = default_config()
    config.model.width = config.model.depth = 0.01
    config.input.size = 64
    config.input.max_heads = 4
    config.data.demo = record_set(str(shipped("demo/studio_demo")))
    config.phases = ConfigDict()
    length = {"epochs": 4 * 4 / 700, "batch_size": 4, "learning_rate": 1e-3}  # four steps
    config.phases.a = phase(("face",), alpha=1, **length)
    config.phases.b = phase(("backbone", "neck", "face"), alpha=1, **length)
    config.phases.c = phase(EVERYTHING, **length)
    config.log_every_steps = 1
    config.save_every_steps = 2
    config.eval_every_epochs = 2 * 4 / 700
    config.eval_images = 8
    return config
