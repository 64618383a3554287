"""What is said to a user: one base class, and kinds of it that several rooms raise and catch.

A command says an `MtnetError` (and an `OSError` of the system) in one line. Everything else is a
slip of this project or of a library: it keeps its traceback, which says more than its message. Each
kind is also the built-in exception that Python code would expect.
"""

import json

# What json.loads raises: for text that is no JSON, for bytes that are no text, and for lists nested
# to do harm.
NOT_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)


class MtnetError(Exception):
    """Something that the user can mend; the message names what is wrong and a cure."""


class BadInput(MtnetError, ValueError):
    """A file, option or argument whose content cannot be used."""


class BadRecord(BadInput):
    """A record whose content breaks the schema; the message names the image and the field."""


class MissingFile(MtnetError, FileNotFoundError):
    """A file or folder that is not there."""


class FileInTheWay(MtnetError, FileExistsError):
    """An output that would replace something which is not this command's to replace."""


class Unavailable(MtnetError, OSError):
    """Something of the machine that is needed and not there: a screen, an encoder, a lock."""


class Failed(MtnetError, RuntimeError):
    """Work that cannot go on: a package that is not installed, a loss that is no number."""


class NotSupported(MtnetError, NotImplementedError):
    """Something that this package cannot do yet."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, so that what was written is whole."""


class Preempted(Terminated):
    """SIGTERM while training, after the step it was in was saved."""


class WorkerDied(MtnetError, ChildProcessError):
    """A process that worked for this one ended without a result."""
