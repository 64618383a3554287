r"""The four rows of the paper's Table 2, on the records of `representations`.

    mtnet ablate table2 --workdir runs/representations

In the work directory of `representations` the two rows of v2 are there already. Table 2 does not
say what v1 predicts; here it is Euler angles, since vectors enter the paper with v2.
"""

from mtnet_jax.ablation.spec import Ablation, load_ablation


def get_ablation():
    euler = {"model.representation": "euler"}
    v1 = {**euler, "model.version": "v1"}
    others = load_ablation("representations")
    return Ablation(
        config=others.config,
        arms={
            "v1 euler": v1,
            "v1 euler, tanh": {**v1, "model.pose_activation": "tanh"},
            "v2 euler": others.arms["v2 euler"],
            "v2 vectors": others.arms["v2 vectors"],
        },
        seeds=others.seeds,
        reference="v2 vectors",
        test_sets=others.test_sets,
    )
