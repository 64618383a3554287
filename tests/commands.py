"""The command `mtnet` run in this process, for tests."""

from mtnet_jax.cli import main


def runner(capsys):
    """What runs a command and gives its exit code, output and lines of errors."""

    def call(*words) -> tuple[int, str, list[str]]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        errors = [
            line for line in lines if line.strip() and not line.endswith(("/image]", "image/s]"))
        ]
        return code, captured.out, errors

    return call


def refused(run):
    """What runs a command that must end with exit code 1 and one line on stderr, which it gives."""

    def call(*words) -> str:
        code, _, errors = run(*words)
        assert code == 1
        assert len(errors) == 1
        assert errors[0].startswith(f"mtnet {words[0]}")
        return errors[0]

    return call
