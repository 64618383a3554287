"""`mtnet page` in browsers and before cameras that are not as one would wish."""

import threading

import numpy as np
import pytest

from mtnet_jax.page.build import write_page
from mtnet_jax.page.serve import make_server
from mtnet_jax.shipped import weights_folder
from tests import test_page

# Chromium, and whether the package of the runtime is at hand: as there.
browser, package = test_page.browser, test_page.package


@pytest.fixture(scope="module")
def served(package, tmp_path_factory):
    """The address of the page of the weights that ship."""
    folder = tmp_path_factory.mktemp("page")
    write_page(weights_folder(), folder)
    with make_server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}/"
        server.shutdown()


OLD_IMAGES = """const make = globalThis.createImageBitmap;
    globalThis.createImageBitmap = (file, options) => options?.imageOrientation === "from-image"
        ? Promise.reject(new TypeError("not a valid enum value")) : make(file, options)"""


def test_images_in_browsers_that_do_not_know_from_image(browser, served):
    page = test_page.Opened(browser, served, before=OLD_IMAGES)
    assert len(page.look_at(test_page.IMAGES[0])["heads"]) == 1


@pytest.mark.parametrize("answer", ["undefined", "() => false"])
def test_a_browser_without_import_maps_is_told_what_it_takes(browser, served, answer):
    before = f"HTMLScriptElement.supports = {answer}"
    page = test_page.Opened(browser, served, before=before, ready=False)
    page.wait_for_status("too old for this page: use Chrome or Edge 96")
    assert page.errors == []


def test_a_page_that_waits_for_its_parts_does_not_ask_for_javascript(browser, served):
    stopped = "HTMLBodyElement.prototype.appendChild = () => {}"  # its script never begins
    page = test_page.Opened(browser, served, before=stopped, ready=False)
    assert page.status == "Loading …"


def test_a_camera_that_is_unplugged_is_said_and_starts_again(browser, served):
    page = test_page.Opened(browser, served, before=test_page.COUNTED)
    page.tab.click("#camera")
    page.wait_for_results(1)
    page.tab.evaluate("streams[0].getTracks()[0].dispatchEvent(new Event('ended'))")
    page.wait_for_status("gives no more images")
    assert page.tab.inner_text("#camera") == "Start the camera"
    assert page.tab.evaluate("streams[0].active") is False
    page.tab.wait_for_timeout(500)
    assert "gives no more images" in page.status  # and no result writes over it
    page.tab.click("#camera")
    page.wait_for_results(1)
    assert page.tab.get_attribute("#camera", "aria-pressed") == "true"
    assert page.errors == []


def test_a_file_that_is_no_image(browser, served):
    page = test_page.Opened(browser, served)
    text = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    page.tab.set_input_files("#file", text)
    page.wait_for_status("notes.txt is no image")
    page.look_at(test_page.IMAGES[0])  # and the page goes on
    assert page.status == "1 head"


def test_the_drawing_shows_axes_in_their_colours(browser, served):
    page = test_page.Opened(browser, served)
    page.look_at(test_page.IMAGES[0])
    drawn = test_page.canvas(page).reshape(-1, 3).astype(int)
    for colour in ((255, 205, 0), (235, 50, 40), (40, 200, 60), (30, 110, 255)):
        assert (np.abs(drawn - colour).max(axis=1) < 12).sum() > 30, colour
