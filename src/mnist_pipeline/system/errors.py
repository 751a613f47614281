"""The errors that a user can cause. Any other exception is a bug."""

from mnist_pipeline.system.secrets import hide


class UserError(Exception):
    """Something the user can fix. The message is one line: the value, what was expected, the next step.

    It may quote what a library said: secrets in it are masked.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(hide(message))


class ConfigError(UserError):
    """The command line or the configuration is wrong. Raised before a run is opened or anything is written."""

    exit_code = 2


class GoneError(UserError):
    """What a command needs was deleted from the store."""


class TakenOverError(UserError):
    """Another command may carry out the work by now: nothing more may be written about it."""


class RefusedError(UserError):
    """A gate of the registry refused."""

    exit_code = 3


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is not an Exception: only the end of the command may swallow it."""

    exit_code = 143
