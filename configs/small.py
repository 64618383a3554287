r"""A narrow net for two CPU cores overnight: heads and helmets of Hard Hat, poses of Pointing'04.

    mtnet data convert pointing04 --raw DATA/pointing04 --out records/pointing04
    mtnet data convert yolo --raw DATA/hardhat --out records/hardhat \
        --label-map head=head,helmet=head
    mtnet train --config small --workdir runs/small

A quarter of the channels and half of the blocks of the paper's net, 224 pixels. Nothing is
pretrained, so phase 1, which gives neck and face branch a quick start on an untrained backbone, is
short. Results of a shorter run: docs/results.md.
"""

from mtnet_jax.config import default_config, phase, record_set


def get_config():
    config = default_config()
    config.model.width = 0.25
    config.model.depth = 0.5
    config.input.size = 224
    config.input.max_heads = 32
    # Made by `mtnet data anchors`: mean best IoU .83 on these boxes, .69 with the COCO anchors.
    config.input.anchors = (
        (156, 178), (186, 199), (219, 242),
        (34, 53), (48, 75), (75, 112),
        (14, 23), (19, 30), (25, 41),
    )  # fmt: skip

    config.data.pointing04 = record_set("records/pointing04", weight=2.0)
    config.data.hardhat = record_set("records/hardhat", eval_split="valid")
    config.augment.turn = 20.0
    config.augment.scale_min = 0.5
    config.augment.scale_max = 1.8

    config.phases.phase1 = phase(
        ("neck", "face"), epochs=0.5, batch_size=32, learning_rate=1e-3, warmup_steps=20, alpha=1
    )
    config.phases.phase2 = phase(
        ("backbone", "neck", "face"),
        epochs=8,
        batch_size=16,
        learning_rate=1e-3,
        warmup_steps=100,
        alpha=1,
    )
    config.phases.phase3 = phase(
        ("backbone", "neck", "face", "pose"),
        epochs=60,
        batch_size=16,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=200,
        alpha=0.3,
    )
    config.clip_norm = 30.0
    config.eval_images = 300
    return config
