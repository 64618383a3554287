"""What `mtnet page` writes and refuses, without a browser: tests/test_page.py opens it in one."""

import base64
import gzip
import json
import os
import re
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from mtnet_jax.cli import main
from mtnet_jax.errors import BadInput, FileInTheWay, MissingFile, Unavailable
from mtnet_jax.outputs import PARTIAL, Outputs
from mtnet_jax.page import build, runtime
from mtnet_jax.page.serve import HEADERS, make_server
from tests.image_files import written

SETTINGS = {"size": 64, "iou": 0.5, "classNames": ["</script>"], "frame": "ray", "licence": "<b>"}
RUNTIME = {runtime.SCRIPT: b"export {}", runtime.WASM: b"\0asm"}


@pytest.fixture
def parts(monkeypatch):
    """A model and a runtime of a few bytes."""
    monkeypatch.setattr(build, "model_of", lambda weights: (b"model", SETTINGS))
    monkeypatch.setattr(build, "runtime_files", lambda package: RUNTIME)


def embedded(page: str, name: str) -> bytes:
    (text,) = re.findall(rf'id="embedded-{name}">(.*?)</script>', page)
    return gzip.decompress(base64.b64decode(text))


def test_a_folder_holds_all_that_its_page_asks_for(parts, tmp_path):
    index = build.write_page(tmp_path / "any", tmp_path / "out")
    page = index.read_text()
    assert not re.findall(r"\{(policy|style|about|licences|settings|embedded)\}", page)
    settings = json.loads(re.findall(r'id="settings">(.*?)</script>', page)[0])
    assert settings["classNames"] == ["</script>"]
    assert "licence &lt;b&gt;" in page
    (imports,) = re.findall(r'type="importmap">(.*?)</script>', page)
    wanted = [*json.loads(imports)["imports"].values(), settings["model"], settings["runtime"]]
    wanted += re.findall(r'href="([\w.]+)"', page)
    there = set(written(index.parent))
    assert {name.removeprefix("./") for name in wanted} | {build.INDEX, runtime.WASM} == there
    for module in build.MODULES.values():  # and no module asks for another one
        asked = re.findall(r'from "(.*?)"', (index.parent / module).read_text())
        assert set(asked) <= set(build.MODULES)


def test_a_single_file_holds_everything(parts, tmp_path):
    index = build.write_page(tmp_path / "any", tmp_path / "out", single_file=True)
    assert written(index.parent) == [build.INDEX]
    page = index.read_text()
    assert embedded(page, "model") == b"model"
    assert embedded(page, "runtime") == RUNTIME[runtime.SCRIPT]
    assert embedded(page, "wasm") == RUNTIME[runtime.WASM]
    assert "connect-src 'none'" in page
    assert "Copyright (c) Microsoft Corporation" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_only_a_page_of_this_command_is_written_over(parts, tmp_path):
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    build.write_page(tmp_path / "any", own)
    (own / "app.js").write_text("of the user")
    (own / "mine.css").write_text("of the user")
    build.write_page(tmp_path / "any", own, single_file=True)
    assert written(own) == ["app.js", build.INDEX, "mine.css"]  # no part of the page in several
    foreign.mkdir()
    (foreign / build.INDEX).write_text("<title>my site</title>")
    with pytest.raises(FileInTheWay, match="choose another"):
        build.write_page(tmp_path / "any", foreign)
    assert (foreign / build.INDEX).read_text() == "<title>my site</title>"
    assert len(list(foreign.iterdir())) == 1
    with pytest.raises(FileInTheWay, match="is a file"):
        build.write_page(tmp_path / "any", own / build.INDEX)
    page = (own / build.INDEX).read_text() + "<!-- mine -->"
    (own / build.INDEX).write_text(page)
    with pytest.raises(FileInTheWay, match="was changed since it was made"):
        build.write_page(tmp_path / "any", own)
    assert (own / build.INDEX).read_text() == page


def test_a_page_that_was_cut_short_is_written_again(parts, monkeypatch, tmp_path):
    def killed(self, partial, path, of, put=Outputs._put_in_place):
        if path.name == build.INDEX:
            os.link(partial, path.with_name(f"{path.name}.of_the_killed{PARTIAL}"))
            raise KeyboardInterrupt
        put(self, partial, path, of)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(Outputs, "_put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            build.write_page(tmp_path / "any", out)
    assert build.INDEX not in written(out)
    (out / "mine.txt").write_text("of the user")
    with pytest.raises(FileInTheWay, match="holds other things"):
        build.write_page(tmp_path / "any", out)
    (out / "mine.txt").unlink()
    (out / ".DS_Store").write_text("of who looked at the folder")
    assert build.write_page(tmp_path / "any", out).is_file()


def test_a_package_that_is_another_one(tmp_path):
    package = tmp_path / "onnxruntime-web.tgz"
    with pytest.raises(MissingFile, match=re.escape(str(package))):
        runtime.runtime_files(package)
    package.write_bytes(b"something else")
    with pytest.raises(BadInput, match=f"{re.escape(str(package))}.*npm pack"):
        runtime.runtime_files(package)


def test_without_a_network_the_cure_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(
        Unavailable, match=r"127\.0\.0\.1:9/onnxruntime-web.*--onnxruntime-web FILE"
    ):
        runtime.runtime_files()


def test_a_registry_that_is_no_address_or_breaks_off_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("npm_config_registry", "registry.example.org")
    with pytest.raises(Unavailable, match=r"unknown url type.*--onnxruntime-web FILE"):
        runtime.runtime_files()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_a_part, args=[server], daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("npm_config_registry", address)
        with pytest.raises(Unavailable, match=r"IncompleteRead.*--onnxruntime-web FILE"):
            runtime.runtime_files()


def answer_a_part(server: socket.socket) -> None:
    """Promises 99 bytes, sends 3, and hangs up."""
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc")


def test_a_port_that_is_taken_is_said_with_a_cure(tmp_path):
    with make_server(tmp_path) as server:
        port = server.server_address[1]
        with pytest.raises(Unavailable, match=rf"port {port} .*another one with --serve PORT"):
            make_server(tmp_path, port)


def test_a_damaged_copy_in_the_cache_is_fetched_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = runtime.cache_folder() / runtime.NAME
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half a pack")
    monkeypatch.setattr(runtime, "_fetched", lambda: b"fetched")
    monkeypatch.setattr(runtime, "is_genuine", lambda data: data == b"fetched")
    monkeypatch.setattr(runtime, "_taken_apart", lambda data, origin: {"data": data})
    assert runtime.runtime_files() == {"data": b"fetched"}
    assert kept.read_bytes() == b"fetched"
    monkeypatch.setattr(runtime, "_fetched", lambda: pytest.fail("fetched twice"))
    assert runtime.runtime_files() == {"data": b"fetched"}


def test_a_cache_that_cannot_be_written_loses_no_page(monkeypatch, tmp_path, capsys):
    (tmp_path / "mtnet_jax").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(runtime, "_fetched", lambda: b"fetched")
    monkeypatch.setattr(runtime, "_taken_apart", lambda data, origin: {"data": data})
    assert runtime.runtime_files() == {"data": b"fetched"}
    said = capsys.readouterr().err
    assert f"{runtime.NAME} cannot be kept (" in said
    assert "XDG_CACHE_HOME" in said


def test_a_cache_that_is_full_keeps_no_half_of_a_package(monkeypatch, tmp_path):
    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(runtime, "_fetched", lambda: b"fetched")
    monkeypatch.setattr(runtime, "_taken_apart", lambda data, origin: {"data": data})
    monkeypatch.setattr(Path, "write_bytes", full)
    assert runtime.runtime_files() == {"data": b"fetched"}
    assert written(runtime.cache_folder()) == []


def test_weights_that_are_not_there_are_named(capsys, tmp_path):
    missing = tmp_path / "missing.onnx"
    assert main(["page", "--out", str(tmp_path / "out"), "--weights", str(missing)]) == 1
    assert str(missing) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_server_isolates_the_page(tmp_path):
    (tmp_path / "a.wasm").write_bytes(b"\0asm")
    with make_server(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/a.wasm"
        with urllib.request.urlopen(address, timeout=10) as response:
            assert {name: response.headers[name] for name in HEADERS} == HEADERS
            assert response.headers["Content-Type"] == "application/wasm"
        server.shutdown()
