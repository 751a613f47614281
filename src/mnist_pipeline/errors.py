"""Errors that a user can cause. Only these are printed as one line; any other exception is a bug and shows itself."""


class UserError(Exception):
    """Something the user can mend. The message is one line: the value, what was expected, the next step."""

    exit_code = 1


class ConfigError(UserError):
    """The command line or the configuration is wrong. Raised before anything heavy is imported or a run is opened."""

    exit_code = 2


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it is no Exception: nothing but the end of the command may swallow it."""

    exit_code = 143
