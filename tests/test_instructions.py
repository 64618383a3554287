"""What is asked of processors that lack instructions."""

from functools import partial

import onnxruntime
import pytest

from mtnet_jax.cpu.instructions import lacks_vnni
from mtnet_jax.predict import onnx_runtime
from mtnet_jax.shipped import weights_folder


@pytest.mark.parametrize(
    ("flags", "lacking"),
    [
        ("flags\t\t: sse2 avx2", True),
        ("flags\t\t: avx2 avx_vnni", False),
        ("flags\t\t: avx2 avx512_vnni", False),
        ("Features\t: fp asimd", False),  # of Arm
        (None, False),  # no Linux
    ],
)
def test_sums_of_8_bits_do_not_overflow(monkeypatch, tmp_path, flags, lacking):
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"model name : avx512_vnni\n{flags}\n")
    said = partial(lacks_vnni, tmp_path / "cpuinfo")
    assert said() == lacking
    monkeypatch.setattr(onnx_runtime, "lacks_vnni", said)
    options = onnxruntime.SessionOptions()
    monkeypatch.setattr(onnxruntime, "SessionOptions", lambda: options)
    onnx_runtime.make_session(weights_folder() / "heads-int8.onnx")
    try:
        exact = options.get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # there is no such entry
        exact = "0"
    assert exact == str(int(lacking))
