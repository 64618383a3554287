r"""Protocol 3 of the paper: CMU Panoptic, several people an image, all 360 degrees (Table 3).

    mtnet protocol 3 --rawpanoptic DIR --workdir runs/protocol3 \
        --config.init.darknet_weights=yolov3.weights

The public split by sequence (data_prep/panoptic/splits.py), every 60th frame; the paper trained on
81 sequences and does not name those it tested on.

The number to beat: IoU 62.31 %, MAE of yaw, pitch, roll 9.55, 11.29, 8.32 degrees, mean 9.72
(vectors); with Euler angles 59.07 %, 11.49, 13.26, 9.45, mean 11.40. MAE at all yaws is what the
paper prints; the geodesic error in the report is what can be trusted near profiles.

The setting of section 4.1 (`configs/paper.py`), for GPUs or TPUs.
"""

from mtnet_jax.config import record_set, starting_from


def get_config():
    config = starting_from("paper")
    del config.data["train_set"]
    config.data.panoptic = record_set("records/panoptic", eval_split="")
    return config
