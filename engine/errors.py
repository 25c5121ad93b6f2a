"""Exceptions, by what the run does next.

    EngineError
    ├── SkipImage      one image cannot be translated: record the reason and continue with the others
    ├── SetupError     the run cannot start with these arguments on this machine: one sentence, exit code 2
    │   └── BackendUnavailable   one backend cannot run here; another one may
    └── StopRun        the run cannot continue: keep the results so far, exit code 2

Any other exception is a defect in Solstice and ends the run with a traceback.
"""


class EngineError(Exception):
    """Base class of all deliberate errors; the message is one sentence for the user."""


class SkipImage(EngineError):
    """Raised when one image cannot be translated."""


class SetupError(EngineError):
    """Raised when a run cannot start on this machine or with these arguments."""


class BackendUnavailable(SetupError):
    """Raised when a backend cannot run on this machine; `auto` falls back to the next one."""


class StopRun(EngineError):
    """Raised when a run cannot continue, for example because the disk is full or the GPU is lost."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
