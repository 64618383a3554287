r"""Protocol 2 of the paper: 70 % of BIWI for training, 30 % for testing (Table 2).

    mtnet protocol 2 --rawbiwi DIR --workdir runs/protocol2 \
        --config.init.darknet_weights=yolov3.weights

16 and 8 sequences by a written list (data_prep/sets/biwi.py), since no paper says which it drew;
`--subject-disjoint` shares no person between the two.

The number to beat: IoU 63.6 %, MAE of yaw, pitch, roll 5.33, 3.90, 3.28 degrees, mean 4.17 (v2,
vectors). The other rows of Table 2: v1 63.8 %, 4.53, 4.60, 3.47 (`--config.model.version=v1`); v1
tanh 73.4 %, 5.49, 3.92, 3.21 (`--config.model.version=v1 --config.model.pose_activation=tanh`); v2
Euler 60.72 %, 6.02, 5.33, 5.11 (`--config.model.representation=euler`). On crops: 6DRepNet 2.66.

The setting of section 4.1 (`configs/paper.py`), for GPUs or TPUs.
"""

from mtnet_jax.config import record_set, starting_from


def get_config():
    config = starting_from("paper")
    del config.data["train_set"]
    config.data.biwi = record_set("records/biwi", eval_split="")
    return config
