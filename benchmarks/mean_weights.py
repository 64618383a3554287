"""The mean of two weights, of which one was trained on from the other: often better than both.

    python -m benchmarks.mean_weights runs/later weights/earlier --share 0.6 --out runs/mean
    mtnet export --workdir runs/mean --out exported --half --format onnx --size 512

SHARE of the first, the rest of the second; the second may be of a smaller network, from which the
first began (docs/network.md). Wortsman et al., Model soups (2022). BatchNorm's statistics are
averaged like the parameters, which holds for weights that lie close together, and for no others.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from mtnet_jax.errors import BadInput
from mtnet_jax.training.starting import means_otherwise, start_from, start_warnings
from mtnet_jax.weights import load_weights, write_weights


def mean_of(later: dict[str, Any], earlier: dict[str, Any], share: float) -> dict[str, Any]:
    """Variables: `share` of the first, the rest of the second in a network as large.

    Raises:
      BadInput: the two are not of one network.
    """
    grown, became = start_from(earlier, later)
    if "fresh" in became:
        raise BadInput(f"the two differ in more than size: {', '.join(became['fresh'])}")
    a, b = flatten_dict(later), flatten_dict(grown)
    mean = {name: share * np.asarray(a[name]) + (1 - share) * np.asarray(b[name]) for name in a}
    return unflatten_dict(mean)


def check_same(found: ConfigDict, config: ConfigDict, variables: dict[str, Any]) -> None:
    """Raises BadInput where the numbers of two networks mean something else in each."""
    otherwise = means_otherwise(found, config, variables["params"]).values()
    if reasons := [*otherwise, *start_warnings(found, config)]:
        raise BadInput(f"the two have no mean: {'; '.join(reasons)}")


def main() -> None:
    """Reads two, writes their mean with the configuration of the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("later", type=Path, metavar="DIR")
    parser.add_argument("earlier", type=Path, metavar="DIR")
    parser.add_argument("--share", type=float, default=0.5, help="of the first (default: 0.5)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    if not 0 <= args.share <= 1:
        parser.error(f"--share {args.share}: from 0 to 1")
    config, later = load_weights(args.later)
    found, earlier = load_weights(args.earlier)
    check_same(found, config, later)
    print(write_weights(args.out, config, mean_of(later, earlier, args.share)))


if __name__ == "__main__":
    main()
