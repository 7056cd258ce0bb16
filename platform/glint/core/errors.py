"""Errors with an owner: those that are the user's to mend, and those that belong to one image."""


class GlintError(ValueError):
    """A mistake in what the user asked for: its message is one line naming the setting, the value and the choices.

    The command line prints that line and exits with 2; the HTTP API answers 4xx. Anything else is our bug: a traceback.
    """


def one_line(error: Exception) -> str:
    """What a foreign error says, or its kind where it says nothing, as one line of 300 letters at most."""
    return " ".join(str(error).split())[:300] or type(error).__name__


class ConflictError(GlintError):
    """Somebody else has changed what was about to be replaced: read it again, then decide."""


class MissingError(GlintError):
    """There is nothing of the name that was asked for."""


class StoreError(GlintError):
    """The result store cannot be used, now or as it is set up: whoever runs glint can mend it, a caller cannot."""


class ImageError(GlintError):
    """One image cannot be read or decoded: it becomes that image's outcome and disturbs no other.

    `status` is an outcome status (missing, denied, changed, undecodable, too_large, failed); `type` is a short
    snake_case reason, such as truncated; the message is one line for a person.
    """

    def __init__(self, status: str, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return self.__class__, (self.status, self.type, str(self))
