"""Where the real data lies, and JAX settings that turn silent surprises into errors."""

import os
import uuid
from pathlib import Path

import jax
import pytest
from upath import UPath

REPOSITORY = Path(__file__).resolve().parent.parent

# Without oneDNN, whose programs cannot be kept in the cache below; tests/test_onednn.py has it on.
os.environ["MTNET_ONEDNN"] = "0"
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile far more than they compute: compile with little optimisation, and never twice.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the raw data sets: $MTNET_DATA, by default ../shared/data beside the repository."""
    path = Path(os.environ.get("MTNET_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(
            f"no raw data at {path}: set MTNET_DATA to the folder that holds pointing04, ..."
        )
    return path


@pytest.fixture(scope="session")
def tensorflow_python() -> Path:
    """The interpreter that has TensorFlow: $MTNET_TF_PYTHON, or that of .venv-tensorflow."""
    default = REPOSITORY / ".venv-tensorflow" / "bin" / "python"
    python = Path(os.environ.get("MTNET_TF_PYTHON", default))
    if not python.exists():
        pytest.skip(
            f"no TensorFlow at {python}: set MTNET_TF_PYTHON, or make the environment as "
            "requirements-tensorflow-test.txt says"
        )
    return python


@pytest.fixture(scope="session")
def assets_dir(data_dir) -> Path:
    """MakeHuman's assets, for the studio."""
    folder = data_dir / "makehuman"
    if not folder.is_dir():
        pytest.skip(f"no assets of MakeHuman at {folder}")
    return folder


@pytest.fixture(scope="module")
def figure(assets_dir):
    """The figure of the studio's people."""
    from data_prep.studio.records import figure_of

    return figure_of(assets_dir)


@pytest.fixture(scope="module")
def people(figure):
    """Twelve people of the studio, all different."""
    from tests.studio_scenes import twelve

    return twelve(figure)


@pytest.fixture
def run(capsys):
    """What runs `mtnet`, see `tests.commands.runner`."""
    from tests.commands import runner

    return runner(capsys)


@pytest.fixture
def fails(run):
    """What runs a command that must be refused, see `tests.commands.refused`."""
    from tests.commands import refused

    return refused(run)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """An exported folder of a tiny network with random weights."""
    from tests.tiny import write_random_weights

    folder = tmp_path_factory.mktemp("weights")
    write_random_weights(folder)
    return folder


@pytest.fixture(scope="session")
def predictor(weights):
    """The predictor of these weights, which finds something in any image."""
    from mtnet_jax import Predictor
    from tests.tiny import SCORE

    return Predictor.load(weights, score_threshold=SCORE)


@pytest.fixture
def address():
    """An address of its own for every test."""
    root = UPath(f"memory://{uuid.uuid4().hex}")
    yield root
    if root.exists():
        root.fs.rm(root.path, recursive=True)
