"""Errors by who has to do something about them."""


class BaseToolkitError(Exception):
    """An error that ends an algorithm; `caused_by`: what it came from."""

    def __init__(self, message: str | None = None, caused_by: BaseException | None = None) -> None:
        said = message or (str(caused_by) if caused_by else "unknown error occurred")
        cause = f" (caused by {type(caused_by).__name__})" if caused_by else ""
        self.message, self.caused_by = said + cause, caused_by
        super().__init__(self.message)


class AlgorithmError(BaseToolkitError):
    """The algorithm's own."""


class UserError(BaseToolkitError):
    """The user's: a setting, an input."""


class PlatformError(BaseToolkitError):
    """The platform's."""
