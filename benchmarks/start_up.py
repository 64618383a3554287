"""From the command to the first step: imports, compilation, and what the cache saves.

    python -m benchmarks.start_up --config configs/quickstart.py

Everything is timed in new processes. `import mtnet_jax` is what a program of yours pays that uses
the package. A training run of one step a phase says when each phase has compiled; it is made with
an empty compilation cache and again with what the first run left there. Programs that call oneDNN
cannot be kept in the cache, so on x86 CPUs the same is measured once more without oneDNN.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORT_RUNS = 5


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.py"))
    args = parser.parse_args()

    for statement in ("import mtnet_jax", "import mtnet_jax; mtnet_jax.Predictor"):
        times = sorted(_python(statement) for _ in range(IMPORT_RUNS))
        print(f"{statement}: {times[IMPORT_RUNS // 2]:.2f} s beyond an empty program")
    with tempfile.TemporaryDirectory() as folder:
        for title, environment in (("", {}), (", without oneDNN", {"MTNET_ONEDNN": "0"})):
            cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache{len(title)}", **environment}
            for number, state in enumerate(("empty cache", "full cache")):
                print(f"first steps, {state}{title}:")
                first_steps(args.config, Path(folder) / f"run{len(title)}{number}", cache)


def first_steps(config: Path, workdir: Path, environment: dict[str, str]) -> None:
    """Trains a step a phase and prints, in seconds from the command, when each had compiled."""
    from mtnet_jax.config import load_config

    options = ["--config.eval_every_epochs=0", "--config.eval_images=1"]
    options += [f"--config.phases.{name}.epochs=1e-6" for name in load_config(config).phases]
    command = [sys.executable, "-m", "mtnet_jax.cli", "train"]
    command += [f"--config={config}", f"--workdir={workdir}", *options]
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        found = re.match(r"(.*): step compiled in (.*) s", line)
        if found:
            seconds = time.perf_counter() - start
            print(f"  {found[1]}: compiled in {found[2]} s, {seconds:.1f} s after the command")
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} failed with exit code {process.returncode}")
    print(f"  all done after {time.perf_counter() - start:.1f} s")


def _python(statement: str) -> float:
    """Seconds of a statement in a new interpreter, without what starting one takes."""
    seconds = []
    for program in (statement, "pass"):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        seconds.append(time.perf_counter() - start)
    return seconds[0] - seconds[1]


if __name__ == "__main__":
    main()
