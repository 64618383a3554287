r"""The setting of the paper (section 4.1): Darknet-53, 416 pixels, vectors, three phases.

For one or more GPUs or TPUs:

    mtnet train --config paper --workdir runs/paper \
        --config.data.train_set.path=records/panoptic \
        --config.init.darknet_weights=yolov3.weights

Ablations of Table 2 and 3 are one option away: `--config.model.representation=euler`,
`--config.model.version=v1`, `--config.model.pose_activation=tanh` (with v1: "v1 tanh").
Phase 1 trains the last layers of the face branch alone, so it needs a backbone and a neck that
already see: start from `yolov3.weights` (docs/network.md says where it comes from), or give phase 1
the neck as well.
"""

from mtnet_jax.config import default_config, record_set


def get_config():
    config = default_config()
    config.data.train_set = record_set("records/panoptic")
    return config
