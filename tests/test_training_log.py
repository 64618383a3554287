"""The log where the disk is full."""

import threading

from mtnet_jax.training.log import TrainingLog

VALUES = {"loss": 1.0, "images_per_second": 2.0}


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
