"""What the readers and loaders raise: one sentence that names the file and the mend."""

from __future__ import annotations


class DataError(ValueError):
    """Data on disk, or a request for it, is wrong; the message is the sentence a user reads."""


class BadSample(DataError):
    """One image cannot be used. In training another takes its place; anywhere else it is an error."""

    def __init__(self, path: object, reason: str, mend: str = "") -> None:
        self.path = str(path)
        self.reason = reason
        self.mend = mend
        super().__init__(f"{path}: {reason}{'; ' + mend if mend else ''}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:  # worker processes send it home
        return type(self), (self.path, self.reason, self.mend)
