"""Published rows of the tables: mean absolute errors of canonical Euler angles in degrees.

As printed by their authors unless the source says otherwise; None is what was not printed. Means of
Multitask-Net's rows on BIWI 70/30 and on CMU are computed here, the paper prints none.
"""

from typing import NamedTuple

PAPER = "Nguyen Viet et al. 2021"
_HOPENET = "Ruiz et al. 2018, arXiv:1710.00925"
_FSA = "Yang et al. 2019, CVPR"
_TRINET = "Cao et al. 2021, arXiv:2010.07184"
_WHENET = "Zhou, Gregson 2020, arXiv:2005.10353"
_SIXD = "Hempel et al. 2022, arXiv:2202.12555"
_DIRECT = "Zhou et al. 2023, arXiv:2302.01110"


class Row(NamedTuple):
    """What a method reached on a test set.

    Attributes:
      method: its name.
      yaw, pitch, roll, mae: degrees.
      detection: IoU or AP in percent, with its name; empty for methods that are given crops.
      source: where it is printed.
      crops: heads came from boxes of another source, so none was missed.
    """

    method: str
    yaw: float | None
    pitch: float | None
    roll: float | None
    mae: float
    detection: str
    source: str
    crops: bool = True


def _ours(method: str, yaw: float, pitch: float, roll: float, iou: str, table: int) -> Row:
    mae = round((yaw + pitch + roll) / 3, 2)
    return Row(method, yaw, pitch, roll, mae, iou, f"{PAPER}, Table {table}", crops=False)


_EULER, _VECTORS = "Multitask-Net v2, Euler", "Multitask-Net v2, vectors"

BIWI = (
    Row("Hopenet (alpha = 1)", 4.81, 6.61, 3.27, 4.90, "", _HOPENET),
    Row("FSA-Net (fusion)", 4.27, 4.96, 2.76, 4.00, "", _FSA),
    Row("TriNet", None, None, None, 3.97, "", _TRINET),
    Row("WHENet", 3.99, 4.39, 3.06, 3.81, "", _WHENET),
    Row("6DRepNet", 3.24, 4.48, 2.68, 3.47, "", _SIXD),
    _ours(_EULER, 4.64, 7.23, 6.23, "", 1),
    _ours(_VECTORS, 4.62, 4.29, 4.52, "", 1),
)
BIWI_70_30 = (
    Row("FSA-Net", None, None, None, 3.60, "", _FSA),
    Row("TriNet", None, None, None, 2.80, "", _TRINET),
    Row("6DRepNet", None, None, None, 2.66, "", _SIXD),
    _ours("Multitask-Net v1", 4.53, 4.60, 3.47, "IoU 63.8", 2),
    _ours("Multitask-Net v1, tanh", 5.49, 3.92, 3.21, "IoU 73.4", 2),
    _ours(_EULER, 6.02, 5.33, 5.11, "IoU 60.72", 2),
    _ours(_VECTORS, 5.33, 3.90, 3.28, "IoU 63.6", 2),
)
CMU = (
    _ours(_EULER, 11.49, 13.26, 9.45, "IoU 59.07", 3),
    _ours(_VECTORS, 9.55, 11.29, 8.32, "IoU 62.31", 3),
)
AFLW2000 = (
    Row("Hopenet (alpha = 1)", None, None, None, 6.41, "", _HOPENET),
    Row("WHENet", 5.11, 6.24, 4.92, 5.42, "", _WHENET),
    Row("FSA-Net (fusion)", 4.50, 6.08, 4.64, 5.07, "", _FSA),
    Row("DirectMHP-M", None, None, None, 4.04, "", _DIRECT, crops=False),
    Row("6DRepNet", 3.63, 4.91, 3.37, 3.97, "", _SIXD),
)
CMU_HPE = (Row("DirectMHP-M", None, None, None, 7.76, "AP50:95 82.5", _DIRECT, crops=False),)
AGORA_HPE: tuple[Row, ...] = ()
