"""What `mtnet quickstart` trains: a narrow net on the demo records, minutes on two cores."""

from mtnet_jax.config import default_config, phase, record_set
from mtnet_jax.shipped import shipped


def get_config():
    config = default_config()
    config.model.width = 0.25
    config.model.depth = 0.125
    config.input.size = 160
    config.input.max_heads = 8
    config.data.demo = record_set(str(shipped("demo/studio_demo")))
    config.augment.scale_min = 0.8
    config.augment.scale_max = 1.25
    config.augment.shift = 0.15
    everything = ("backbone", "neck", "face", "pose")
    config.phases.phase1 = phase(
        ("neck", "face"), epochs=1, batch_size=16, learning_rate=1e-3, alpha=1
    )
    config.phases.phase2 = phase(
        ("backbone", "neck", "face"), epochs=4, batch_size=8, learning_rate=1e-3, alpha=1
    )
    config.phases.phase3 = phase(
        everything,
        epochs=18,
        batch_size=8,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=20,
        alpha=0.3,
    )
    config.clip_norm = 30.0
    config.log_every_steps = 10
    config.save_every_steps = 200
    config.eval_every_epochs = 6.0
    return config
