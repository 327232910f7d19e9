"""The errors that a user can fix. They are printed as one sentence, without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Something a user can fix: where it is (a file, a flag, a field), what is wrong there, and how to fix it.

    The message is "where: reason; hint". A sentence that says all three may stand alone in the place of `where`.
    """

    exit_code = 1

    def __init__(self, where: object, reason: str = "", hint: str = "") -> None:
        self.where, self.reason, self.hint = str(where), reason, hint
        super().__init__(": ".join(filter(None, (self.where, reason))) + f"; {hint}" * bool(hint))

    def __reduce__(self) -> tuple[object, ...]:  # worker processes send it home
        return type(self), (self.where, self.reason, self.hint)


class RecipeError(UserError):
    """A command line or a recipe is wrong."""

    exit_code = 2


class DataError(UserError):
    """Data on disk, or a request for it, is wrong."""


class BadSample(DataError):
    """One image cannot be used. In training another takes its place; anywhere else it is an error."""


def first_line(error: BaseException, most: int = 300) -> str:
    """Return the beginning of what a library says, without a full stop; the error's kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most].strip().rstrip(".")
