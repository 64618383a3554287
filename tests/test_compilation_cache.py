"""Where compiled programs are kept, and that a second process finds them there."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

PROGRAM = """
import jax, jax.numpy as jnp
from mtnet_jax.cpu.compilation_cache import keep_compiled_programs
print(keep_compiled_programs())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
print(sum(name.endswith("/cache_hits") for name in hits))
"""


def run(**environment):
    kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    folder, hits = done.stdout.split()
    return folder, int(hits)


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    folder, hits = run(XDG_CACHE_HOME=str(tmp_path))
    assert folder == str(tmp_path / "mtnet_jax")
    assert hits == 0
    _, hits = run(XDG_CACHE_HOME=str(tmp_path))
    assert hits > 0


def test_the_user_decides(tmp_path):
    folder, _ = run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert folder == str(tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir())
    folder, _ = run(JAX_COMPILATION_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path))
    assert folder == "None"
    assert not (tmp_path / "mtnet_jax").exists()
