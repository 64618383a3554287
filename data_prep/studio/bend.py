"""How the neck bends: points of a person at rest -> points in the world."""

import cv2
import numpy as np

from data_prep.studio.person import NECK_BASE, NECK_TOP, Part
from data_prep.studio.scene import PlacedPerson


def place_part(part: Part, placed: PlacedPerson) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals of a part in the world.

    A point that follows the head by the share s is turned, relative to the body, by the s-th part
    of the head's rotation, and sits on a neck that bends evenly: its axis c(s) has the direction
    R(s) (top - base). Points of the head (s = 1) move rigidly, points of the body (s = 0) too.

    Args:
      part: at rest.
      placed: where head and body are.

    Returns:
      (n, 3) points in metres and (n, 3) unit normals.
    """
    relative = placed.body_rotation.T @ placed.head_rotation
    vector = cv2.Rodrigues(relative)[0][:, 0]
    angle = max(float(np.linalg.norm(vector)), 1e-9)
    cross = np.array(
        [[0, -vector[2], vector[1]], [vector[2], 0, -vector[0]], [-vector[1], vector[0], 0]]
    )
    square = cross @ cross
    top = (np.eye(3) + (1 - np.cos(angle)) / angle**2 * cross) @ (NECK_TOP - NECK_BASE)
    top += (angle - np.sin(angle)) / angle**3 * square @ (NECK_TOP - NECK_BASE)
    head_origin = top - relative @ NECK_TOP  # from the base of the neck, in body axes
    head, body = placed.head_rotation, placed.body_rotation
    # Most points follow the head or the body alone, rigidly.
    on_body, on_head = part.head_share <= 0, part.head_share >= 1
    if on_head.all():
        return part.points @ head.T + placed.head_position, part.normals @ head.T
    from_base = placed.head_position - body @ (head_origin + NECK_BASE)
    if on_body.all():
        return part.points @ body.T + from_base, part.normals @ body.T
    points, normals = np.empty_like(part.points), np.empty_like(part.normals)
    points[on_head] = part.points[on_head] @ head.T + placed.head_position
    normals[on_head] = part.normals[on_head] @ head.T
    points[on_body] = part.points[on_body] @ body.T + from_base
    normals[on_body] = part.normals[on_body] @ body.T
    # The others, on the neck: R(s) by Rodrigues' formula, and its integral along the axis.
    on_neck = ~(on_body | on_head)
    share = part.head_share[on_neck, None, None]
    first = np.sin(share * angle) / angle
    second = (1 - np.cos(share * angle)) / angle**2
    third = (share * angle - np.sin(share * angle)) / angle**3
    turn = np.eye(3) + first * cross + second * square
    axis = (share * np.eye(3) + second * cross + third * square) @ (NECK_TOP - NECK_BASE)
    aside = part.points[on_neck] - NECK_BASE - share[:, :, 0] * (NECK_TOP - NECK_BASE)
    bent = axis + np.einsum("nij,nj->ni", turn, aside) - head_origin
    points[on_neck] = bent @ body.T + placed.head_position
    normals[on_neck] = np.einsum("nij,nj->ni", turn, part.normals[on_neck]) @ body.T
    return points, normals
