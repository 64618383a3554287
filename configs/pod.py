r"""The paper's network on many accelerators: bfloat16, batches of 1,024, a scaled learning rate.

Planned, not measured: docs/scaling.md has the formulas and the commands.

    mtnet train --config pod --workdir runs/pod --distributed \
        --config.data.train_set.path=records/panoptic \
        --config.init.darknet_weights=yolov3.weights

Batches of phase 1 are 4 times the paper's, those of phases 2 and 3 64 times; the learning rate
grows with the root of that, as Adam's should (Malladi et al. 2022, arXiv:2205.10287), after a
warm-up. The average of the weights is what is evaluated and exported.
"""

from mtnet_jax.config import default_config, record_set

BATCH = 1024


def get_config():
    config = default_config()
    config.data.train_set = record_set("records/panoptic")
    config.model.dtype = "bfloat16"
    for name in config.phases:
        phase = config.phases[name]
        phase.rate_batch, phase.rate_rule = phase.batch_size, "sqrt"
        phase.batch_size, phase.warmup_steps, phase.schedule = BATCH, 500, "cosine"
    config.phases.phase1.batch_size = 256
    config.clip_norm = 10.0
    config.ema_decay = 0.999
    config.best_metric = "train_set/ap50"
    config.loader_processes = 32  # of a process; with one for each GPU fewer: docs/scaling.md
    config.eval_images = 4096
    return config
