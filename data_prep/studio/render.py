"""Renders scenes with VTK, off screen and without a GPU.

One render window a process is kept and used again; textures stay loaded. The image that VTK draws
says in its lowest bits who is seen at each pixel. The surroundings are painted by NumPy and lie
behind, nearer or further by their depth.
"""

import functools
import os
from typing import Any

import cv2
import numpy as np

from mtnet_jax.errors import BadInput

# No threads of Mesa's own: frames are rendered in several processes. Read when Mesa is loaded.
os.environ.setdefault("LP_NUM_THREADS", "0")

from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkFloatArray, vtkPoints, vtkUnsignedCharArray
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkImageData, vtkPolyData
from vtkmodules.vtkCommonMath import vtkMatrix4x4
from vtkmodules.vtkRenderingCore import (
    vtkActor,
    vtkLight,
    vtkPolyDataMapper,
    vtkRenderer,
    vtkTexture,
)
from vtkmodules.vtkRenderingOpenGL2 import vtkEGLRenderWindow

from data_prep.studio import paint
from data_prep.studio.bend import place_part
from data_prep.studio.figure import point_normals
from data_prep.studio.person import SHINY
from data_prep.studio.scene import Camera, Rendering, Scene
from data_prep.studio.shadows import with_shadows

NEAR, FAR = 0.1, 100.0  # metres
MOST_PEOPLE = 63
# Hair has holes, everything else is solid. The lowest two bits of each colour say who is seen:
# that changes a colour by 3 of 255 at most, and saves a second pass. A mesh with a texture belongs
# to one person; of the others, merged into one, each point has the person's number in its opacity.
_MARK = "//VTK::DepthPeeling::Impl"
_HOLES = "if (gl_FragData[0].a < 0.45) discard;"
_OWN_NUMBER = "float number = personNumber;"
_NUMBER_OF_POINT = "float number = floor(255.5 - 255.0 * gl_FragData[0].a);"
_WRITE = """vec3 bits = mod(floor(number / vec3(1.0, 4.0, 16.0)), 4.0);
vec3 marked = 4.0 * floor(clamp(gl_FragData[0].rgb, 0.0, 1.0) * 63.75) + bits;
gl_FragData[0] = vec4(marked / 255.0, 1.0);
"""
_TEXTURES_KEPT = 96


def render(scene: Scene, camera: Camera, *, supersample: float = 1.25) -> Rendering:
    """An image of a scene.

    Args:
      scene: what is there.
      camera: the eye; its image size is that of the result.
      supersample: people and things are drawn this many times larger and then shrunk.

    Returns:
      Image, depth and ids, see `Rendering`.

    Raises:
      ValueError: more than MOST_PEOPLE people.
    """
    if len(scene.people) > MOST_PEOPLE:
        raise BadInput(f"{len(scene.people)} people: a scene holds {MOST_PEOPLE} at most")
    return _renderer().render(scene, camera, supersample)


@functools.lru_cache(maxsize=1)
def _renderer() -> "_Renderer":
    return _Renderer()


class _Renderer:
    """The render window of this process."""

    def __init__(self):
        self._window = vtkEGLRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetAlphaBitPlanes(1)
        self._window.SetMultiSamples(0)
        self._scene = vtkRenderer()
        self._scene.SetBackground(0, 0, 0)
        self._scene.SetBackgroundAlpha(0)
        self._scene.SetAutomaticLightCreation(0)
        self._scene.SetTwoSidedLighting(1)
        self._window.AddRenderer(self._scene)
        self._textures: dict[tuple, vtkTexture] = {}

    def render(self, scene: Scene, camera: Camera, supersample: float) -> Rendering:
        size = (round(camera.width * supersample), round(camera.height * supersample))
        self._window.SetSize(*size)
        self._clear()
        self._look(camera)
        for light in scene.lights:
            self._add_light(light)
        ambient = np.asarray(scene.ambient, float)
        plain: dict[bool, list] = {False: [], True: []}  # without texture: dull, shiny
        for number, placed in enumerate(scene.people, start=1):
            for part in placed.person.parts:
                points, normals = place_part(part, placed)
                if _out_of_sight(points, camera):
                    continue
                mesh = (points, normals, part.triangles, part.colours)
                if part.texture is None:
                    plain[part.gloss > SHINY].append((*mesh, number))
                else:
                    data = _poly_data(mesh, part.uv)
                    texture = self._texture(part.texture)
                    self._scene.AddActor(_actor(data, part.gloss, ambient, texture, number))
        for thing in scene.things:
            if not _out_of_sight(thing.points, camera):
                normals = point_normals(thing.points, thing.triangles)
                mesh = (thing.points, normals, thing.triangles, thing.colours)
                plain[thing.gloss > SHINY].append((*mesh, 0))
        for shiny, meshes in plain.items():
            if meshes:
                data = _poly_data(_merged(meshes))
                self._scene.AddActor(_actor(data, 0.7 if shiny else 0.08, ambient))
        self._window.Render()
        drawing, depth = self._read(size)

        wanted = (camera.width, camera.height)
        behind, behind_depth = scene.surroundings.paint(camera)
        behind = with_shadows(behind, behind_depth, scene, camera)
        depth = np.float32(NEAR * FAR) / (np.float32(FAR) - depth * np.float32(FAR - NEAR))
        large_depth = cv2.resize(behind_depth, size, interpolation=cv2.INTER_NEAREST)
        drawn = (drawing[..., 3] > 0) & (depth < large_depth)
        colour = np.ascontiguousarray(drawing[..., :3]) * drawn[..., None]
        # Averages of the samples of each pixel, and the share of them that show somebody.
        colour = cv2.resize(colour, wanted, interpolation=cv2.INTER_AREA)
        cover = cv2.resize(drawn * np.uint8(255), wanted, interpolation=cv2.INTER_AREA)
        share = cover[..., None] * np.float32(1 / 255)
        image = colour + behind * (1 - share)
        # Depth and ids are those of the sample at the middle of each pixel.
        rows = ((np.arange(camera.height) + 0.5) * size[1] / camera.height).astype(int)
        columns = ((np.arange(camera.width) + 0.5) * size[0] / camera.width).astype(int)
        grid = np.ix_(rows, columns)
        red, green, blue = (drawing[..., k][grid] & 3 for k in range(3))
        return Rendering(
            image=np.minimum(image + 0.5, 255).astype(np.uint8),
            depth=np.where(drawn, depth, large_depth)[grid],
            ids=np.where(drawn[grid], red + 4 * green + 16 * blue, 0).astype(np.uint8),
        )

    def _clear(self) -> None:
        actors = self._scene.GetActors()
        actors.InitTraversal()
        while (actor := actors.GetNextActor()) is not None:
            actor.SetTexture(None)  # it would be unloaded with the actor: half of a frame's time
        self._scene.RemoveAllViewProps()
        self._scene.RemoveAllLights()

    def _look(self, camera: Camera) -> None:
        view = self._scene.GetActiveCamera()
        forward, up = camera.rotation[2], -camera.rotation[1]
        position = camera.position
        view.SetPosition(*position)
        view.SetFocalPoint(*(position + forward))
        view.SetViewUp(*up)
        (fx, skew, cx), (_, fy, cy) = camera.matrix[0], camera.matrix[1]
        width, height = camera.width, camera.height
        # Pixels to OpenGL's clip coordinates: x right, y up, looking along -z.
        rows = [
            [2 * fx / width, -2 * skew / width, 1 - 2 * cx / width, 0],
            [0, 2 * fy / height, 2 * cy / height - 1, 0],
            [0, 0, -(FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)],
            [0, 0, -1, 0],
        ]
        matrix = vtkMatrix4x4()
        matrix.DeepCopy([value for row in rows for value in row])
        view.SetExplicitProjectionTransformMatrix(matrix)
        view.SetUseExplicitProjectionTransformMatrix(True)
        view.SetClippingRange(NEAR, FAR)

    def _add_light(self, light) -> None:
        lamp = vtkLight()
        lamp.SetLightTypeToSceneLight()
        lamp.SetPositional(False)
        lamp.SetPosition(*(-np.asarray(light.direction, float)))
        lamp.SetFocalPoint(0, 0, 0)
        lamp.SetColor(*np.asarray(light.colour, float))
        self._scene.AddLight(lamp)

    def _texture(self, name: tuple) -> vtkTexture:
        if name not in self._textures:
            if len(self._textures) >= _TEXTURES_KEPT:
                oldest = next(iter(self._textures))
                self._textures.pop(oldest).ReleaseGraphicsResources(self._window)
            self._textures[name] = _vtk_texture(paint.texture(name))
        return self._textures[name]

    def _read(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 4) uint8 RGBA and (H, W) what OpenGL calls depth, 0 to 1."""
        corners = (0, 0, size[0] - 1, size[1] - 1)
        depth = vtkFloatArray()
        self._window.GetZbufferData(*corners, depth)
        pixels = vtkUnsignedCharArray()
        self._window.GetRGBACharPixelData(*corners, 0, pixels)
        shape = size[::-1]
        return (
            vtk_to_numpy(pixels).reshape(*shape, 4)[::-1],
            vtk_to_numpy(depth).reshape(shape)[::-1],
        )


def _out_of_sight(points: np.ndarray, camera: Camera) -> bool:
    """Whether all points, in the world, lie beyond one edge of the image or behind the camera."""
    x, y, z = camera.to_camera(points).T
    across = x * camera.matrix[0, 0] + y * camera.matrix[0, 1] + z * camera.matrix[0, 2]
    down = y * camera.matrix[1, 1] + z * camera.matrix[1, 2]
    return bool(
        (z < NEAR).all()
        or (across < 0).all()
        or (across > camera.width * z).all()
        or (down < 0).all()
        or (down > camera.height * z).all()
    )


def _poly_data(mesh: tuple[Any, ...], uv: np.ndarray | None = None) -> vtkPolyData:
    """A mesh (points, normals, triangles, colours) as VTK has it."""
    points, normals, triangles, colours = mesh
    data = vtkPolyData()
    vtk_points = vtkPoints()
    vtk_points.SetData(numpy_to_vtk(np.ascontiguousarray(points, np.float32), deep=True))
    data.SetPoints(vtk_points)
    cells = vtkCellArray()
    offsets = np.arange(0, 3 * len(triangles) + 1, 3, dtype=np.int32)
    corners = np.ascontiguousarray(triangles, np.int32).ravel()
    cells.SetData(numpy_to_vtk(offsets, deep=True), numpy_to_vtk(corners, deep=True))
    data.SetPolys(cells)
    data.GetPointData().SetNormals(
        numpy_to_vtk(np.ascontiguousarray(normals, np.float32), deep=True)
    )
    if colours is not None:
        array = numpy_to_vtk(np.ascontiguousarray(colours, np.uint8), deep=True)
        data.GetPointData().SetScalars(array)
    if uv is not None:
        array = numpy_to_vtk(np.ascontiguousarray(uv, np.float32), deep=True)
        data.GetPointData().SetTCoords(array)
    return data


def _merged(meshes: list[tuple]) -> tuple[np.ndarray, ...]:
    """Meshes (points, normals, triangles, colours, number of the person) as one, see `_MARK`."""
    points, normals, triangles, colours, numbers = zip(*meshes, strict=True)
    starts = np.cumsum([0, *(len(part) for part in points)])
    opacity = np.repeat([255 - number for number in numbers], np.diff(starts))
    return (
        np.concatenate(points),
        np.concatenate(normals),
        np.concatenate([part + start for part, start in zip(triangles, starts, strict=False)]),
        np.c_[np.concatenate(colours), opacity].astype(np.uint8),
    )


def _actor(
    data: vtkPolyData, gloss: float, ambient: np.ndarray, texture=None, number: int = 0
) -> vtkActor:
    mapper = vtkPolyDataMapper()
    mapper.SetInputData(data)
    mapper.SetColorModeToDirectScalars()
    actor = vtkActor()
    actor.SetMapper(mapper)
    look = actor.GetProperty()
    look.SetAmbientColor(*np.clip(ambient / max(ambient.max(), 1e-6), 0, 1))
    look.SetAmbient(float(ambient.max()))
    look.SetDiffuse(1.0)
    look.SetSpecular(0.5 * gloss)
    look.SetSpecularPower(5 + 60 * gloss)
    look.SetInterpolationToPhong()
    if texture is not None:
        actor.SetTexture(texture)
    actor.ForceOpaqueOn()
    lines = [_MARK, _OWN_NUMBER if texture else _NUMBER_OF_POINT, _WRITE]
    if texture and texture.GetInput().GetNumberOfScalarComponents() == 4:
        lines.insert(1, _HOLES)
    elif texture:
        look.BackfaceCullingOn()  # skin and eyes are never seen from inside
    shader = actor.GetShaderProperty()
    shader.AddFragmentShaderReplacement(_MARK, True, "\n".join(lines), False)
    shader.GetFragmentCustomUniforms().SetUniformf("personNumber", float(number))
    return actor


def _vtk_texture(image: np.ndarray) -> vtkTexture:
    height, width, channels = image.shape
    data = vtkImageData()
    data.SetDimensions(width, height, 1)
    pixels = np.ascontiguousarray(image[::-1]).reshape(-1, channels)
    data.GetPointData().SetScalars(numpy_to_vtk(pixels, deep=True))
    texture = vtkTexture()
    texture.SetInputData(data)
    texture.InterpolateOn()
    texture.MipmapOn()
    texture.SetMaximumAnisotropicFiltering(1.0)  # more costs time and shows nothing at these sizes
    texture.SetColorModeToDirectScalars()
    return texture
