"""The errors that the three packages raise on purpose.

    RankerError
    ├── InputError(ValueError)      a table, an id or an argument cannot be used as given
    │   └── TaskError               a task on which a model finds nothing tells nothing of it
    ├── ConfigError(ValueError)     a setting is unknown, of the wrong type or out of range
    ├── ArtifactError(OSError)      a saved file is missing, damaged, or of another format
    ├── ExportError(RuntimeError)   an exported model lost more quality than its tolerance allows
    ├── OverloadError(RuntimeError) more requests came than can be answered in time
    ├── BatchError(RuntimeError)    requests that ran together were interrupted, or not all answered
    └── ExtraError(ImportError)     an optional dependency is not installed

Every message says what happened, why, and what to do. Anything else that escapes is a defect.
"""


class RankerError(Exception):
    """Base of every error that the library raises on purpose."""


class InputError(RankerError, ValueError):
    """A table, an id or an argument cannot be used as given."""


class TaskError(InputError):
    """A model finds nothing on a task, so no loss can be measured on it."""


class ConfigError(RankerError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class ArtifactError(RankerError, OSError):
    """A saved file is missing, damaged, or of another format."""


class ExportError(RankerError, RuntimeError):
    """An exported model lost more quality than its tolerance allows."""


class OverloadError(RankerError, RuntimeError):
    """More requests came than can be answered in time; this one was not run."""


class BatchError(RankerError, RuntimeError):
    """Requests that ran together were interrupted, or not all answered."""


class ExtraError(RankerError, ImportError):
    """An optional dependency is not installed; the message holds the install command."""


def first_line(error: BaseException) -> str:
    """What somebody else's error says first, for a message of ours; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
