"""Milliseconds an image of the page in Chromium, for exported files side by side.

    python -m benchmarks.page --weights exported/heads.onnx exported/heads-int8.onnx

Needs requirements-page-test.txt and Chromium. The files take turns on one image of 640x480, so that
whatever else the machine does falls on all of them; ratios are to the first file.
"""

import argparse
import shutil
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

from mtnet_jax.page.build import write_page
from mtnet_jax.page.serve import make_server

_WARM_UP = 3


def main() -> None:
    """Opens a tab for each file and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = work / "image.png"
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        cv2.imwrite(str(image), cv2.GaussianBlur(noise, (0, 0), 3.0))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tabs = []
        for number, weights in enumerate(args.weights):
            write_page(weights, work / str(number))
            server = stack.enter_context(make_server(work / str(number)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            tabs.append(browser.new_page())
            tabs[-1].goto(f"http://localhost:{server.server_address[1]}/")
            _wait(tabs[-1], "globalThis.mtnet?.ready")
        for _ in range(_WARM_UP):
            times = [_look(tab, image) for tab in tabs]
        times = np.array([[_look(tab, image) for tab in tabs] for _ in range(args.rounds)])
        browser.close()
    print(
        f"{'file':40}{'prepare':>10}{'run':>10}{'ratio of runs':>16}   (least of {args.rounds}, ms)"
    )
    for number, weights in enumerate(args.weights):
        prepare, run = times[:, number].min(axis=0)
        ratio = np.median(times[:, number, 1] / times[:, 0, 1])
        print(f"{str(weights)[-39:]:40}{prepare:10.1f}{run:10.1f}{ratio:16.2f}")


def _look(tab: Page, image: Path) -> list[float]:
    """Milliseconds before the network and in it."""
    before = tab.evaluate("mtnet.results")
    tab.set_input_files("#file", image)
    _wait(tab, f"mtnet.results > {before}")
    return tab.evaluate("[mtnet.last.prepare, mtnet.last.run]")


def _wait(tab: Page, condition: str) -> None:
    while not tab.evaluate(condition):
        tab.wait_for_timeout(10)


if __name__ == "__main__":
    main()
