"""The log where the disk is full."""

import sys
import threading
import time

import pytest

from mtnet_jax.training.log import TrainingLog

VALUES = {"loss": 1.0, "images_per_second": 2.0}


@pytest.mark.parametrize(("terminal", "lines"), [(True, 5), (False, 1)])
def test_a_progress_line_is_drawn_often_for_a_terminal_alone(
    monkeypatch, capsys, tmp_path, terminal, lines
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with TrainingLog(tmp_path, resume_step=0, total_steps=100, main=True) as log:
        capsys.readouterr()
        for _ in range(6):
            time.sleep(0.15)  # tqdm draws ten a second at most
            log.advance("a")
        drawn = capsys.readouterr().err.count("step/s") + capsys.readouterr().err.count("s/step")
    assert (drawn >= lines) if terminal else (drawn < lines)


def test_a_dead_writer_of_tensorboard_stops_nothing(tmp_path):
    """It ends at the first error; the run must come to the line or checkpoint that says so."""

    def full(_):
        raise OSError(28, "No space left on device")

    with TrainingLog(tmp_path, resume_step=0, total_steps=100, main=True) as log:
        log._board.file_writer.event_writer._ev_writer.write_event = full
        before = threading.excepthook
        threading.excepthook = lambda _: None
        try:
            logging = threading.Thread(
                target=lambda: [log.metrics("train", n, "a", VALUES) for n in range(40)],
                daemon=True,
            )
            logging.start()
            logging.join(30)
            assert not logging.is_alive()
        finally:
            threading.excepthook = before
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 40
