"""Errors are outcomes: each class says what the run does next.

    EngineError
    ├── SkipImage      this image is bad: record the reason, go on with the others
    ├── SetupError     the run cannot start as asked: one sentence, exit code 2
    │   └── BackendUnavailable   one backend cannot run here, another may
    └── StopRun        the run cannot go on: keep what is done, exit code 2

Anything that is not an `EngineError` is a defect in Solstice and ends the run with a traceback.
"""


class EngineError(Exception):
    """Base of every error that Solstice raises on purpose; its text is one sentence for the user."""


class SkipImage(EngineError):
    """One image cannot be translated; all others can."""


class SetupError(EngineError):
    """What was asked for cannot be done on this machine or with these arguments."""


class BackendUnavailable(SetupError):
    """One way to run a generator is not to be had on this machine; `auto` takes the next one."""


class StopRun(EngineError):
    """The run lost something it cannot do without, such as the output folder or disk space."""
