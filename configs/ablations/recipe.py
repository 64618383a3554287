r"""The parts of the recipe that goes beyond the paper, each taken away or changed alone.

    mtnet ablate recipe --workdir runs/recipe

Records and network: `configs/photographs.py`. Results: docs/ablation.md.
"""

from mtnet_jax.ablation.spec import Ablation, HeldOut


def get_ablation():
    return Ablation(
        config="photographs",
        arms={
            "recipe": {},
            "not packed": {"pack.share": 0.0},
            "one anchor a head": {"assign.positives": 1},
            "CIoU": {
                "phases.phase3.loss.iou": 1.0,
                "phases.phase3.loss.xy": 0.0,
                "phases.phase3.loss.wh": 0.0,
            },
            "averaged weights": {"ema_decay": 0.99},
            "geodesic loss": {"pose_loss.vectors": "geodesic"},
        },
        seeds=(0, 1, 2),
        reference="recipe",
        test_sets={
            "hardhat": HeldOut("records/hardhat", "test"),
            "masks": HeldOut("records/masks", "test"),
            "pointing04": HeldOut("records/pointing04", "test"),
            "studio_42": HeldOut("records/studio_42", "train", limit=400),
        },
    )
