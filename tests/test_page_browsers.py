"""`mtnet page` in browsers and before cameras that are not as one would wish."""

import threading

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
