r"""Representations whose losses weigh the same beside that of the boxes, where training begins.

    mtnet ablate equal_weight --workdir runs/representations

The losses of representations have other scales (docs/ablation.md): with one `alpha` for all, Euler
angles have a seventh of the say of vectors in what the network shares. Here alpha is chosen so that
pose and boxes weigh against each other as they do for vectors. In the work directory of
`representations` the runs of vectors are there already.
"""

import dataclasses

from mtnet_jax.ablation.spec import load_ablation

# The mean loss of outputs of 0, where training begins: of yaw all round, and pitch and roll that
# deviate by 20 and 15 degrees.
LOSS_OF_ZEROS = {"vectors": 3.0, "sixd": 2.0, "quaternion": 1.0, "euler": 0.411}
ALPHA = 0.3  # of vectors in `configs/crops.py`


def get_ablation():
    others = load_ablation("representations")
    arms = {"v2 vectors": others.arms["v2 vectors"]}
    for name in ("euler", "sixd", "quaternion"):
        # (1 - alpha) / alpha * loss is the same for all.
        boxes = (1 - ALPHA) / ALPHA * LOSS_OF_ZEROS["vectors"]
        alpha = LOSS_OF_ZEROS[name] / (LOSS_OF_ZEROS[name] + boxes)
        arms[f"v2 {name}, weighed"] = {
            "model.representation": name,
            "phases.phase3.loss.alpha": round(alpha, 4),
        }
    return dataclasses.replace(others, arms=arms)
