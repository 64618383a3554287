"""Which networks look at heads once more: large ones (`far_look`), small ones (`close_look`)."""

from ml_collections import ConfigDict

# Heads from this score on take part in second looks, of which scores are means, whatever score is
# asked for.
LEAST_SCORE = 0.1


def second_look_iou(config: ConfigDict, wanted: bool | None = None) -> float | None:
    """IoU beyond which heads of two looks are one; None where images are looked at once.

    Args:
      config: of the network.
      wanted: whether to look again; None: as the network was trained for.
    """
    if wanted is None:
        wanted = config.input.get("second_look", False)  # weights of before have no such option
    return config.decode.iou_threshold if wanted else None
