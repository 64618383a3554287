"""`mtnet page` in a real Chromium: an image, a camera, what is missing; against Python's heads."""

import base64
import json
import shutil
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mtnet_jax.page.build import INDEX, write_page
from mtnet_jax.page.runtime import VERSION, runtime_files
from mtnet_jax.page.serve import make_server
from mtnet_jax.predict.placing import letterboxed
from mtnet_jax.predict.predictor import Predictor, read_image
from mtnet_jax.predict.summary import DIRECTIONS, direction
from mtnet_jax.rotations import euler_to_rotation, geodesic_degrees, rotation_to_euler
from mtnet_jax.saved_config import read_config
from mtnet_jax.shipped import weights_folder
from tests.conftest import REPOSITORY

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install -r requirements-page-test.txt"
)
pytest.importorskip("onnx", reason="the shipped weights are exported: pip install -e '.[export]'")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt install chromium", allow_module_level=True)

IMAGES = sorted((REPOSITORY / "demo" / "images").glob("*.jpg"))
SIZE = 224
# Between the browser and Python; the browser decodes JPEG and resamples in code of its own.
LEVELS = 1  # of 255, any pixel of the input; 0 where it covers whole pixels and shrinks less than 2
# Of one of these heads two predictions are equally sure but for rounding: either box may be kept.
PIXELS, SCORE, DEGREES = 1.5, 0.02, 1.0  # pixels of an image of 800
TO_THE_BIT = ((288, 384), (224, 224), (640, 480), (720, 1280))
PATIENCE = 120.0  # seconds
CAMERAS = "navigator.mediaDevices.getUserMedia"
NO_CAMERA = "async () => {throw new DOMException('', '%s')}"
COUNTED = f"""const ask = {CAMERAS}.bind(navigator.mediaDevices); globalThis.streams = [];
    {CAMERAS} = async (...of) => (streams.push(await ask(...of)), streams.at(-1))"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """An exported folder of the weights that ship."""
    from mtnet_jax.export.folder import export

    folder = tmp_path_factory.mktemp("exported")
    export(REPOSITORY / "weights" / "release", folder, formats=["onnx"])
    return folder


@pytest.fixture(scope="module")
def package() -> None:
    try:
        runtime_files()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def served(exported, package, tmp_path_factory):
    """The address of the page on a server with the headers of `mtnet page --serve`."""
    folder = tmp_path_factory.mktemp("page")
    write_page(exported, folder)
    with make_server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def single(exported, package, tmp_path_factory) -> str:
    """The address of the page as one file."""
    return write_page(exported, tmp_path_factory.mktemp("single"), single_file=True).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium whose camera shows the demo's first image again and again."""
    film = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    film.write_bytes(IMAGES[0].read_bytes() * 8)
    options = [
        "--no-sandbox",  # else it does not start as root
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


class Opened:
    """A tab, with everything that went wrong in it and every address that it asked for."""

    def __init__(self, browser, address: str, *, before: str = "", ready: bool = True):
        self.tab = browser.new_page(viewport={"width": 1000, "height": 900})
        self.errors, self.requests = [], []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        if before:
            self.tab.add_init_script(before)
        self.tab.goto(address)
        if ready:
            self.wait_for("globalThis.mtnet?.ready")

    @property
    def status(self) -> str:
        return self.tab.inner_text("#status")

    def wait_for(self, condition: str) -> None:
        """Until a JavaScript expression holds. (Playwright's own way needs eval in the page.)"""
        end = time.monotonic() + PATIENCE
        while not self.tab.evaluate(condition):
            assert time.monotonic() < end, (condition, self.status, self.errors)
            self.tab.wait_for_timeout(50)

    def wait_for_status(self, part: str) -> None:
        self.wait_for(f"document.getElementById('status').textContent.includes({part!r})")

    def wait_for_results(self, more: int) -> None:
        self.wait_for(f"mtnet.results >= {self.tab.evaluate('mtnet.results') + more}")

    def look_at(self, file) -> dict:
        before = self.tab.evaluate("mtnet.results")
        self.tab.set_input_files("#file", file)
        self.wait_for(f"mtnet.results > {before}")
        return self.tab.evaluate("mtnet.last")


@pytest.fixture(scope="module")
def python(exported) -> Predictor:
    return Predictor(exported, runtime="onnxruntime")


def assert_same_heads(
    found: list[dict], image: np.ndarray, python: Predictor, looks=1, copies=()
) -> None:
    """`copies`: of the image, as good as equal; each head may be that of one of them instead."""
    expected = python(image)
    assert len(found) == len(expected) > 0
    expected = expected + [head for copy in copies for head in python(copy)]
    boxes = np.array([true.box for true in expected])
    for head in found:  # equally sure ones in any order
        true = expected[np.abs(boxes - head["box"]).max(axis=1).argmin()]
        assert np.abs(np.array(head["box"]) - true.box).max() < PIXELS * max(image.shape) / 800
        assert abs(head["score"] - true.score) < SCORE
        rotation = np.reshape(head["rotation"], (3, 3))
        assert geodesic_degrees(rotation, true.rotation) < DEGREES * looks
        angles = [head["yaw"], head["pitch"], head["roll"]]
        euler = rotation_to_euler(rotation, convention="canonical")
        assert angles == pytest.approx(euler, abs=0.01)


@pytest.mark.parametrize("kind", ["served", "single"])
def test_images_give_pythons_heads(browser, python, kind, request):
    page = Opened(browser, request.getfixturevalue(kind))
    for path in IMAGES:
        assert_same_heads(page.look_at(path)["heads"], read_image(path), python)
    assert page.tab.locator("#rows tr").count() == 1
    assert page.status == "1 head"
    assert page.errors == []


def test_small_heads_and_a_large_one(browser, served, python, tmp_path):
    """All second looks, tiles too: more small heads than one input shows, and a large one."""
    large = cv2.resize(cv2.imread(str(IMAGES[0])), (800, 600))
    scene = np.full((900, 1600, 3), 114, np.uint8)
    scene[:600, :800] = large
    for i in range(10):
        photo = cv2.imread(str(IMAGES[1 + i % 5]))
        small = cv2.resize(photo, (192, 144), interpolation=cv2.INTER_AREA)
        left, top = (850 + 200 * (i % 3), 20 + 160 * (i // 3)) if i < 9 else (20, 700)
        scene[top : top + 144, left : left + 192] = small
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), scene)
    heads = Opened(browser, served).look_at(path)["heads"]
    assert len(heads) == 11
    # A look crops what the one before found, which votes that join by a hair's breadth decide:
    # a grey level more or less in the input, as the page's may have, moves a box by 3 pixels.
    image, rng = read_image(path), np.random.default_rng(0)
    noise = rng.integers(-1, 2, (4, *image.shape[:2], 1))
    copies = np.clip(image + noise, 0, 255).astype(np.uint8)
    assert_same_heads(heads, image, python, looks=2, copies=copies)


@pytest.mark.parametrize("clockwise", [1, 2, 3])
def test_a_head_that_lies(browser, served, python, tmp_path, clockwise):
    lying = np.rot90(read_image(IMAGES[0]), -clockwise).copy()
    path = tmp_path / "lying.png"
    cv2.imwrite(str(path), lying[..., ::-1])
    assert_same_heads(Opened(browser, served).look_at(path)["heads"], lying, python)


def test_threads_where_the_page_is_isolated(browser, served, single):
    page = Opened(browser, served)
    page.look_at(IMAGES[0])
    isolated, cores = page.tab.evaluate("[crossOriginIsolated, navigator.hardwareConcurrency]")
    assert isolated
    threads = "1 thread" if cores == 1 else f"{min(cores, 4)} threads"
    assert page.tab.inner_text("#speed").endswith(threads)
    assert not Opened(browser, single).tab.evaluate("crossOriginIsolated")


def test_a_large_image_turned_by_exif(browser, served, python, tmp_path):
    """Averaged down by 7, from a JPEG that lies on its side."""
    large = cv2.resize(cv2.imread(str(IMAGES[1])), (1733, 1300), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", np.rot90(large))[1].tobytes()
    # APP1 with one entry, orientation 6: turn clockwise to see it upright.
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    last = Opened(browser, served).look_at(path)
    assert (last["width"], last["height"]) == (1733, 1300)
    assert_same_heads(last["heads"], read_image(path), python)


@pytest.mark.parametrize(
    "shape", [*TO_THE_BIT, (100, 60), (449, 1000), (1001, 333), (2, 900)], ids=str
)
def test_the_input_is_opencvs(browser, served, shape):
    """The letterbox alone, on smooth noise."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.0)
    rgba = np.dstack([image, np.full(shape, 255, np.uint8)])
    page = Opened(browser, served)
    got = page.tab.evaluate(
        """async ([text, width, height, size]) => {
            const {letterboxPlace, resampled} = await import("mtnet/heads");
            const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const place = letterboxPlace({width, height}, size);
            const rgb = resampled({data, width, height}, size, place);
            let binary = "";
            for (const byte of rgb) binary += String.fromCharCode(byte);
            return [btoa(binary), place.scale, place.left, place.top];
        }""",
        [base64.b64encode(rgba.tobytes()).decode(), shape[1], shape[0], SIZE],
    )
    rgb = np.frombuffer(base64.b64decode(got[0]), np.uint8).reshape(SIZE, SIZE, 3)
    expected, matrix = letterboxed(image, SIZE)
    off = np.abs(rgb.astype(int) - expected)
    print(shape, off.max(), (off > 0).mean())
    assert off.max() <= (0 if shape in TO_THE_BIT else LEVELS)
    assert got[1:] == pytest.approx([matrix[0, 0], matrix[0, 2], matrix[1, 2]])


def test_angles_are_pythons(browser, served):
    angles = [(y, p, r) for y in range(-180, 181, 30) for p in (-80, 0, 40) for r in (-120, 0, 30)]
    rotations = euler_to_rotation(np.array(angles, float), convention="canonical")
    got = Opened(browser, served).tab.evaluate(
        """async (rotations) => {
            const {euler} = await import("mtnet/heads");
            return rotations.map((r) => Object.values(euler(r)));
        }""",
        rotations.reshape(-1, 9).tolist(),
    )
    back = euler_to_rotation(np.array(got), convention="canonical")
    assert geodesic_degrees(back, rotations).max() < 1e-4
    expected = rotation_to_euler(rotations, convention="canonical")
    away = np.abs((np.array(got) - expected + 180) % 360 - 180)
    locked = np.abs(np.abs(rotations[:, 0, 2]) - 1) < 1e-9  # where rounding chooses
    assert away[~locked].max() < 1e-3


def test_directions_are_pythons(browser, served):
    rotations = Rotation.random(300, rng=np.random.default_rng(0)).as_matrix()
    got = Opened(browser, served).tab.evaluate(
        """async (rotations) => {
            const {direction} = await import("mtnet/heads");
            return rotations.map(direction);
        }""",
        rotations.reshape(-1, 9).tolist(),
    )
    assert got == [direction(rotation) for rotation in rotations]
    assert set(got) == set(DIRECTIONS)


def test_the_camera(browser, served):
    page = Opened(browser, served, before=COUNTED)
    page.tab.dblclick("#camera")
    page.wait_for_results(6)
    assert "frames a second" in page.tab.inner_text("#speed")
    assert page.tab.get_attribute("#camera", "aria-pressed") == "true"
    (head,) = page.tab.evaluate("mtnet.last.heads")
    assert head["score"] > 0.5
    page.tab.dispatch_event("#camera", "click")  # a click waits for a page at rest
    assert page.tab.inner_text("#camera") == "Start the camera"
    assert page.tab.evaluate("streams.map((stream) => stream.active)") == [False, False]
    assert page.errors == []


def test_nothing_leaves_the_page(browser, served, single):
    page = Opened(browser, served)
    page.look_at(IMAGES[0])
    assert all(url.startswith((served, "blob:", "data:")) for url in page.requests)
    alone = Opened(browser, single)
    alone.look_at(IMAGES[0])
    assert {u for u in alone.requests if not u.startswith(("blob:", "data:"))} == {single}
    for tab in (page.tab, alone.tab):  # and cannot: the browser refuses
        refused = tab.evaluate("fetch('https://example.com').then(() => false, () => true)")
        assert refused
    assert any("Content Security Policy" in error for error in page.errors)


@pytest.mark.parametrize(
    ("before", "click", "part"),
    [
        ("delete globalThis.WebAssembly", None, "no WebAssembly"),
        (f"{CAMERAS} = undefined", "#camera", "may not"),
        (f"{CAMERAS} = {NO_CAMERA % 'NotFoundError'}", "#camera", "There is no camera"),
        (f"{CAMERAS} = {NO_CAMERA % 'NotAllowedError'}", "#camera", "not allowed"),
    ],
)
def test_what_is_missing_is_said(browser, served, before, click, part):
    page = Opened(browser, served, before=before, ready=click is not None)
    if click:
        page.tab.click(click)
    page.wait_for_status(part)
    assert page.errors == []


def test_a_transparent_image_shows_nothing_of_the_one_before(browser, served):
    page = Opened(browser, served)
    page.look_at(IMAGES[0])
    clear = cv2.imencode(".png", np.zeros((*read_image(IMAGES[0]).shape[:2], 4), np.uint8))[1]
    file = {"name": "clear.png", "mimeType": "image/png", "buffer": clear.tobytes()}
    assert page.look_at(file)["heads"] == []
    assert not canvas(page).any()


def test_several_files_opened_without_a_server(browser, exported, package, tmp_path):
    index = write_page(exported, tmp_path / "page")
    page = Opened(browser, index.as_uri(), ready=False)
    page.wait_for_status("mtnet page --serve")


def test_by_keyboard_alone(browser, served):
    """Every control is reached by Tab, has a name, and answers to its key."""
    page = Opened(browser, served)
    page.look_at(IMAGES[0])
    names = []
    focused = "document.activeElement.id || document.activeElement.tagName"
    for _ in range(5):
        page.tab.keyboard.press("Tab")
        names.append(page.tab.evaluate(focused))
    assert names == ["file", "camera", "score", "cube", "A"]
    page.tab.focus("#score")
    for _ in range(13):
        page.tab.keyboard.press("ArrowRight")
    assert page.tab.inner_text("#score-shown") == "0.95"
    page.tab.wait_for_timeout(500)
    before, results = canvas(page), page.tab.evaluate("mtnet.results")
    page.tab.focus("#cube")
    page.tab.keyboard.press("Space")
    page.wait_for(f"mtnet.results > {results}")
    assert (canvas(page) != before).any()
    for role, name in (
        ("button", "Choose an image"),
        ("button", "Start the camera"),
        ("slider", "Least score"),
        ("checkbox", "Cubes instead of axes"),
        ("img", "The image with 1 head drawn on it"),
        ("table", "Heads, the surest first"),
    ):
        assert page.tab.get_by_role(role, name=name).count() == 1, (role, name)


def canvas(page: Opened) -> np.ndarray:
    text = page.tab.evaluate("document.getElementById('view').toDataURL().split(',')[1]")
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def test_the_page_names_its_parts(single):
    text = Path(single.removeprefix("file://")).read_text()
    assert f"onnxruntime-web {VERSION}" in text
    assert "Copyright (c) Microsoft Corporation" in text
    settings = json.loads(text.split('id="settings">')[1].split("</script>")[0])
    shipped = read_config(weights_folder()).input
    assert (settings["size"], bool(settings["secondLook"])) == (shipped.size, shipped.second_look)
    assert Path(single.removeprefix("file://")).name == INDEX
