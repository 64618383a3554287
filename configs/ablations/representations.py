r"""How a rotation is written, everything else equal: the claim of the paper's Tables 2 and 3.

    mtnet ablate representations --workdir runs/representations

Records and network: `configs/crops.py`. Results: docs/ablation.md.
"""

from mtnet_jax.ablation.spec import Ablation, HeldOut

IMAGE = r"[^#]+"  # a crop is called IMAGE#HEAD, and crops of one image stand or fall together
TEST_SETS = {
    "studio_42": HeldOut("records/studio_42_crops", "train", IMAGE, limit=2400),
    "pointing04": HeldOut("records/pointing04_crops", "test", IMAGE),
    "masks": HeldOut("records/masks_crops", "test", IMAGE),
    "hardhat": HeldOut("records/hardhat_crops", "test", IMAGE),
}


def get_ablation():
    return Ablation(
        config="crops",
        arms={
            "v2 vectors": {"model.representation": "vectors"},
            "v2 euler": {"model.representation": "euler"},
            "v2 6D": {"model.representation": "sixd"},
            "v2 quaternion": {"model.representation": "quaternion"},
            "v2 vectors, geodesic loss": {
                "model.representation": "vectors",
                "pose_loss.vectors": "geodesic",
            },
        },
        seeds=(0, 1, 2),
        reference="v2 vectors",
        test_sets=TEST_SETS,
    )
