"""The error by which a handler answers with a status of its own."""


class PredictionException(Exception):
    """A request that can't be answered: why, and the status to say so with."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        self.message, self.error_code = message, error_code
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"
