"""Other programs on the same images, as predictions that `mtnet eval` takes beside weights.

    python3.11 -m venv .venv-peers && .venv-peers/bin/pip install -r requirements-peers.txt
    npm pack @mediapipe/face_mesh@0.4.1633559619 && tar xzf mediapipe-face_mesh-*.tgz
    mtnet data images records/aflw2000:test --out images/aflw2000
    .venv-peers/bin/python -m benchmarks.peers mediapipe --images images/aflw2000 \
        --face-model package --out mediapipe.json
    mtnet eval --weights release mediapipe.json --data records/aflw2000 --out runs/peers

`mediapipe`: MediaPipe's face mesh and face geometry, as its package of 0.10.14 holds them, with the
canonical face from its npm package (the wheel has the code for it and not the face).
`two-stage`: OpenCV's YuNet finds faces, any ONNX network that gives poses of crops does the rest:

    .venv-peers/bin/python -m benchmarks.peers two-stage --images images/aflw2000 \
        --yunet face_detection_yunet_2023mar.onnx --pose network.onnx --size 224 --grow 0.3 \
        --output angles --order yaw,pitch,roll --convention canonical --out two_stage.json

This imports no JAX of ours, and nothing that is not in requirements-peers.txt.
"""

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.engine.head_model import FACE_POINTS, head_points
from mtnet_jax.data.listing import list_images
from mtnet_jax.rotations import nearest_rotation

Head = dict[str, Any]
Find = Callable[[np.ndarray], list[Head]]  # (H, W, 3) uint8 RGB -> heads


# MediaPipe: x to the subject's left, y up, z out of the face; its camera has x right, y up, z back.
# Both differ from ours by the same half turn about x.
HALF_TURN = np.diag([1.0, -1.0, -1.0])
VERTICAL_FOV = 63.0  # degrees, of the camera that MediaPipe's face geometry supposes
NEAR, FAR, TOP_LEFT = 1.0, 10_000.0, 2
NOSE_TIP = 1  # vertex of the canonical face
MODEL_NOSE_TIP = np.array(FACE_POINTS[5])  # mm
CANONICAL_FACE = "geometry_pipeline_metadata_landmarks.binarypb"
# Name -> mean and deviation of each channel, which has 0 to 1; "half" makes that -1 to 1.
SCALINGS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5] * 3, [0.5] * 3),
}
PACKED = "face_mesh_solution_packed_assets"


def main() -> None:
    """Runs a program over a folder of images and writes what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peers = parser.add_subparsers(dest="peer", required=True)
    mesh = peers.add_parser("mediapipe")
    mesh.add_argument(
        "--face-model",
        type=Path,
        required=True,
        metavar="PATH",
        help=f"folder of the npm package @mediapipe/face_mesh, or {CANONICAL_FACE}",
    )
    mesh.add_argument("--faces", type=int, default=20, metavar="N", help="at most, an image")
    mesh.add_argument(
        "--landmarks",
        action="store_true",
        help="write the landmarks of each face too: [x, y, z] in pixels, z larger behind, for "
        "mtnet data convert turned-faces",
    )
    # Its landmarks are those of a crop, and so is its rotation: turning it by the ray of the camera
    # that it supposes makes the errors larger (docs/evaluation.md).
    mesh.set_defaults(make=_mediapipe, frame="ray")
    two = peers.add_parser("two-stage")
    two.add_argument("--yunet", type=Path, required=True, metavar="FILE")
    two.add_argument(
        "--pose",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="crop -> pose, ONNX; the mean of what several give (of angles: away from +-180)",
    )
    two.add_argument("--score", type=float, default=0.5, help="least score of a face")
    two.add_argument("--size", type=int, default=224, metavar="N", help="side of its input, pixels")
    two.add_argument("--grow", type=float, default=0.3, help="of a face's box, in parts of a side")
    two.add_argument("--scaling", choices=SCALINGS, default="imagenet", help="of its input")
    two.add_argument("--bgr", action="store_true", help="its input has blue first")
    two.add_argument("--output", choices=("angles", "matrix"), default="angles")
    two.add_argument("--order", default="yaw,pitch,roll", help="of the angles, in degrees")
    two.add_argument("--convention", default="canonical", help="a name of docs/conventions.md")
    two.set_defaults(make=_two_stage, frame="ray")
    for each in (mesh, two):
        each.add_argument("--images", type=Path, required=True, metavar="DIR")
        each.add_argument("--out", type=Path, required=True, metavar="FILE")
        each.add_argument(
            "--flipped",
            action="store_true",
            help="look at the images flipped horizontally, as a teacher must (docs/data.md)",
        )
    args = parser.parse_args()
    listing = list_images(args.images)
    images = listing.images
    if not images:
        parser.error(f"no image in {args.images}: mtnet data images writes them")
    if listing.left_out:
        print(listing)
    find = args.make(args)
    entries = [
        {
            "image": str(path.relative_to(args.images)),
            "width": width,
            "height": height,
            "heads": heads,
        }
        for path, (width, height), heads in _found(images, find, flipped=args.flipped)
    ]
    about = {"program": args.peer, "frame": args.frame}
    about |= {"convention": args.convention} if args.peer == "two-stage" else {}
    args.out.write_text(json.dumps({**about, "images": entries}, allow_nan=False) + "\n")
    print(f"{args.out}: {sum(len(e['heads']) for e in entries)} heads in {len(entries)} images")


def _found(
    images: list[Path], find: Find, *, flipped: bool
) -> Iterator[tuple[Path, tuple[int, int], list[Head]]]:
    """Each image, its width and height as it was looked at, and what was found in it."""
    for number, path in enumerate(images):
        image = cv2.imread(str(path))
        if image is None:
            sys.exit(f"{path} is no image that OpenCV reads")
        rgb = image[:, ::-1, ::-1] if flipped else image[..., ::-1]
        yield path, (rgb.shape[1], rgb.shape[0]), find(np.ascontiguousarray(rgb))
        if number % 100 == 99:
            print(f"{number + 1} of {len(images)} images", flush=True)


# MediaPipe


def _mediapipe(args: argparse.Namespace) -> Find:
    warnings.filterwarnings("ignore", message="SymbolDatabase.GetPrototype")
    graph = FaceGraph(_canonical_face(args.face_model), args.faces)
    outline = _outline(graph.nose_tip)

    def find(image: np.ndarray) -> list[Head]:
        heads = []
        for matrix, points in graph(image):
            heads.append(mediapipe_head(matrix, image.shape, outline, graph.score))
            if args.landmarks:
                width, height = image.shape[1], image.shape[0]
                in_pixels = points * [width, height, width]
                heads[-1]["landmarks"] = [[round(float(v), 2) for v in p] for p in in_pixels]
        return heads

    return find


class FaceGraph:
    """MediaPipe's graph from an image to the transformation matrix and landmarks of every face.

    Its own face mesh, and behind it the calculators of its face landmarker for the face geometry.
    """

    score = 1.0  # the graph gives landmarks without a score

    def __init__(self, canonical_face: bytes, faces: int):
        """Builds and starts the graph.

        Args:
          canonical_face: GeometryPipelineMetadata.
          faces: at most, an image.
        """
        import mediapipe
        from mediapipe.framework import calculator_pb2
        from mediapipe.modules.face_geometry.protos import geometry_pipeline_metadata_pb2
        from mediapipe.python import packet_creator
        from mediapipe.python._framework_bindings import calculator_graph, resource_util
        from mediapipe.tasks.cc.vision.face_geometry.calculators import (
            env_generator_calculator_pb2,
            geometry_pipeline_calculator_pb2,
        )

        face = geometry_pipeline_metadata_pb2.GeometryPipelineMetadata.FromString(canonical_face)
        vertices = np.array(face.canonical_mesh.vertex_buffer).reshape(-1, 5)[:, :3]
        self.nose_tip = vertices[NOSE_TIP]  # cm
        root = Path(mediapipe.__file__).parent
        graph = calculator_pb2.CalculatorGraphConfig.FromString(
            (root / "modules/face_landmark/face_landmark_front_cpu.binarypb").read_bytes()
        )
        graph.ClearField("type")
        graph.output_stream.append("MULTI_FACE_GEOMETRY:geometry")
        graph.node.add(
            calculator="ImagePropertiesCalculator",
            input_stream=["IMAGE:image"],
            output_stream=["SIZE:size_of_image"],
        )
        prefix = "mediapipe.tasks.vision.face_geometry.FaceGeometry"
        camera = graph.node.add(
            calculator=f"{prefix}EnvGeneratorCalculator", output_side_packet=["ENVIRONMENT:camera"]
        )
        options = env_generator_calculator_pb2.FaceGeometryEnvGeneratorCalculatorOptions
        environment = camera.options.Extensions[options.ext].environment
        environment.origin_point_location = TOP_LEFT
        environment.perspective_camera.vertical_fov_degrees = VERTICAL_FOV
        environment.perspective_camera.near = NEAR
        environment.perspective_camera.far = FAR
        pipeline = graph.node.add(
            calculator=f"{prefix}PipelineCalculator",
            input_stream=["IMAGE_SIZE:size_of_image", "MULTI_FACE_LANDMARKS:multi_face_landmarks"],
            input_side_packet=["ENVIRONMENT:camera"],
            output_stream=["MULTI_FACE_GEOMETRY:geometry"],
        )
        options = geometry_pipeline_calculator_pb2.FaceGeometryPipelineCalculatorOptions
        pipeline.options.Extensions[options.ext].metadata_file.file_content = canonical_face
        resource_util.set_resource_dir(str(root.parent))
        self._graph = calculator_graph.CalculatorGraph(graph_config=graph)
        self._latest: dict[str, list[Any]] = {}
        self._time = 0
        for stream in ("geometry", "multi_face_landmarks"):
            self._graph.observe_output_stream(stream, self._keep)
        self._graph.start_run(
            {
                "num_faces": packet_creator.create_int(faces),
                "use_prev_landmarks": packet_creator.create_bool(False),
                "with_attention": packet_creator.create_bool(False),
            }
        )

    def __call__(self, image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The faces of an image (H, W, 3).

        Returns:
          Of each the transformation matrix (4, 4), canonical face to camera, cm, and the landmarks
          (468, 3): x in parts of the width, y of the height, z of the width, larger behind.
        """
        from mediapipe.python import packet_creator
        from mediapipe.python._framework_bindings import image_frame

        self._latest, self._time = {}, self._time + 1
        packet = packet_creator.create_image_frame(
            image_format=image_frame.ImageFormat.SRGB, data=image
        )
        self._graph.add_packet_to_input_stream("image", packet.at(self._time))
        self._graph.wait_until_idle()
        faces = self._latest.get("geometry", [])
        landmarks = self._latest.get("multi_face_landmarks", [])
        return [
            (_matrix(face.pose_transform_matrix), _points(of_face))
            for face, of_face in zip(faces, landmarks, strict=True)
        ]

    def _keep(self, stream: str, packet: Any) -> None:
        from mediapipe.python import packet_getter

        self._latest[stream] = packet_getter.get_proto_list(packet)


def mediapipe_head(
    matrix: np.ndarray, shape: tuple[int, ...], outline: np.ndarray, score: float
) -> Head:
    """A head in our axes, of MediaPipe's matrix.

    Args:
      matrix: (4, 4) canonical face to camera, cm.
      shape: of the image, height first.
      outline: (n, 3) points round an average head, cm in the axes of the canonical face.
      score: of the face.

    Returns:
      The head; its box is the outline's in the image, clipped (the rule `head`).
    """
    height, width = shape[:2]
    rotation = HALF_TURN @ matrix[:3, :3] @ HALF_TURN
    focal = height / 2 / np.tan(np.deg2rad(VERTICAL_FOV) / 2)
    place = HALF_TURN @ matrix[:3, 3]
    # The camera that MediaPipe supposes stands so near that it would see the back of the head
    # small: all of the outline has the scale of the face.
    points = place + outline @ (HALF_TURN @ matrix[:3, :3]).T
    pixels = focal * points[:, :2] / place[2] + [width / 2, height / 2]
    limits = [width, height]
    box = [*np.clip(pixels.min(axis=0), 0, limits), *np.clip(pixels.max(axis=0), 0, limits)]
    return {"box": [float(v) for v in box], "score": score, "rotation": rotation.tolist()}


def _outline(nose_tip: np.ndarray) -> np.ndarray:
    """The average head of `head_model` round the canonical face: the tips of the noses meet."""
    return (head_points() - MODEL_NOSE_TIP) / 10 @ HALF_TURN + nose_tip


def _matrix(data: Any) -> np.ndarray:
    values = np.array(data.packed_data, np.float64)
    by_column = data.layout == 0  # of MatrixData: COLUMN_MAJOR
    shape = (data.cols, data.rows) if by_column else (data.rows, data.cols)
    return values.reshape(shape).T if by_column else values.reshape(shape)


def _points(landmarks: Any) -> np.ndarray:
    return np.array([[point.x, point.y, point.z] for point in landmarks.landmark], np.float64)


def _canonical_face(path: Path) -> bytes:
    """The canonical face's file, or the part of the npm package's assets that it is."""
    if path.is_file():
        return path.read_bytes()
    loader = path / f"{PACKED}_loader.js"
    if not loader.is_file():
        sys.exit(f"no {loader.name} in {path}: npm pack @mediapipe/face_mesh@0.4.1633559619")
    entry = re.search(
        rf'{CANONICAL_FACE}", "start": (\d+), "end": (\d+)', loader.read_text(encoding="utf-8")
    )
    if entry is None:
        sys.exit(f"{loader} names no {CANONICAL_FACE}")
    start, end = map(int, entry.groups())
    return (path / f"{PACKED}.data").read_bytes()[start:end]


# YuNet and a network for crops


def _two_stage(args: argparse.Namespace) -> Find:
    import onnxruntime

    detector = cv2.FaceDetectorYN.create(str(args.yunet), "", (320, 320), args.score)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    providers = ["CPUExecutionProvider"]
    networks = [onnxruntime.InferenceSession(path, options, providers) for path in args.pose]
    order = args.order.split(",")

    def find(image: np.ndarray) -> list[Head]:
        height, width = image.shape[:2]
        detector.setInputSize((width, height))
        faces = detector.detect(np.ascontiguousarray(image[..., ::-1]))[1]
        heads = []
        for face in [] if faces is None else faces.astype(float):
            left, top, *sides = face[:4]
            box = np.array([left, top, left + sides[0], top + sides[1]])
            grown = box + args.grow * np.array([-sides[0], -sides[1], *sides])
            crop = crop_of(image, grown, args.size)
            given = as_input(crop[..., ::-1] if args.bgr else crop, args.scaling)
            poses = [np.ravel(n.run(None, {n.get_inputs()[0].name: given})[0]) for n in networks]
            pose = pose_of(np.mean(poses, axis=0), args.output, order)
            heads.append({"box": grown.tolist(), "score": face[14], **pose})
        return heads

    return find


def crop_of(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The part of an image in a box, (size, size, 3) uint8; grey where it is beyond the image."""
    scale = size / (box[2:] - box[:2])
    matrix = np.array([[scale[0], 0, -scale[0] * box[0]], [0, scale[1], -scale[1] * box[1]]])
    return cv2.warpAffine(image, matrix, (size, size), borderValue=(128, 128, 128))


def as_input(crop: np.ndarray, scaling: str = "imagenet") -> np.ndarray:
    """A crop as these networks take it: (1, 3, size, size); a key of `SCALINGS`."""
    mean, deviation = SCALINGS[scaling]
    normal = (crop / 255.0 - mean) / deviation
    return normal.transpose(2, 0, 1)[None].astype(np.float32)


def pose_of(values: np.ndarray, output: str, order: list[str]) -> Head:
    """The fields of a head's pose: three angles in degrees, or nine numbers of a matrix by rows,
    of which the nearest rotation is taken (a mean of rotations is none)."""
    if output == "matrix":
        return {"rotation": nearest_rotation(values.reshape(3, 3).astype(float)).tolist()}
    return dict(zip(order, values.astype(float).tolist(), strict=True))


if __name__ == "__main__":
    main()
