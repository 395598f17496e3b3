"""The errors of amigrate. Severity is the type, never the text.

AmigrateError
├ UsageError                    the command line or an option is wrong                      -> exit code 2
├ CannotContinue                nothing more can be done in this session                    -> exit code 4
│ ├ AuthError                   the server does not accept our credentials
│ ├ NoServer                    no MLflow server answers at the address, or it went away for good
│ ├ NotAnArchive                the folder holds no archive
│ └ JournalError                the journal is in use by another process, or cannot be written
├ ArchiveError                  one document or file of an archive is unreadable: that one fails
│ └ Missing                     it is not there, although the archive says that it should be
├ Unresolved                    a reference to something not yet moved: deferred
├ Uncarriable                   no server or archive could take it as it is: left behind
└ ApiError                      an answer of a server, with status, code and endpoint
  ├ Transient                   worth another attempt
  ├ NotFound, Conflict, Rejected
  ├ Forbidden                   our credentials do not suffice for this one object
  ├ Unsupported                 the server has no such endpoint or feature
  └ TooLarge                    the answer is bigger than the caller wants to hold
    └ TooSlow                   or took longer than somebody on the way was willing to wait
"""

from __future__ import annotations


class AmigrateError(Exception):
    """Anything amigrate can explain to its user in one line."""

    exit_code = 1


class UsageError(AmigrateError):
    """The request itself makes no sense; nothing was read or written."""

    exit_code = 2


class CannotContinue(AmigrateError):
    """The whole session has to stop."""

    exit_code = 4


class AuthError(CannotContinue):
    """401 or 403: the credentials are missing, wrong, or not enough."""


class NoServer(CannotContinue):
    """Nothing that answers like an MLflow server at the address."""


class NotAnArchive(CannotContinue):
    """The folder is no archive, or its format is not known."""


class JournalError(CannotContinue):
    """The journal is locked by another process, damaged, or the disk is full."""


class DiskError(CannotContinue):
    """The archive cannot be written: disk full, no permission, folder gone."""


class ArchiveError(AmigrateError):
    """One document or one file of an archive is missing or damaged."""

    def __str__(self) -> str:
        """Names on disk and damaged texts may hold what is no character."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class Missing(ArchiveError):
    """One document or one file of an archive is not there, although the archive says that it should be."""


class Unresolved(AmigrateError):
    """A reference names an object that has no new id yet."""


class Uncarriable(AmigrateError):
    """Nothing is wrong with the object, but it cannot be carried: it is left behind rather than failed."""


class ApiError(AmigrateError):
    """A request that did not end well.

    `status` is the HTTP status (0 where no answer came), `code` the server's error_code, `endpoint` the path.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "", endpoint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.endpoint = endpoint


class Transient(ApiError):
    """Worth another attempt.

    `retry_after` (seconds) is the server's wish, `overload` says that it has too much to do, `attempts` how often
    the request is sent at most, `unreachable` that not even a connection came about, `broken` that it broke, `slow`
    that the answer took longer than somebody on the way was willing to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        endpoint: str = "",
        retry_after: float | None = None,
        overload: bool = False,
        attempts: int = 8,
        unreachable: bool = False,
        broken: bool = False,
        slow: bool = False,
    ) -> None:
        super().__init__(message, status=status, code=code, endpoint=endpoint)
        self.retry_after = retry_after
        self.overload = overload
        self.attempts = attempts
        self.unreachable = unreachable
        self.broken = broken
        self.slow = slow


class NotFound(ApiError):
    """The object does not exist (any more)."""


class Conflict(ApiError):
    """The name or id is taken already."""


class Rejected(ApiError):
    """The server understood and refused: this record fails, its siblings do not."""


class Forbidden(Rejected):
    """The credentials are accepted but do not suffice for this one object."""


class Unsupported(ApiError):
    """The server lacks the endpoint or has the feature switched off."""


class TooLarge(ApiError):
    """The answer is larger than the caller allowed; ask for less at a time."""


class TooSlow(TooLarge):
    """No whole answer came in time; ask for less at a time, from now on."""


def leaf(error: BaseException) -> BaseException:
    """The error that matters inside a group of errors: what ends the session before what fails one object."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf(one) for one in error.exceptions]
    return next((one for one in leaves if isinstance(one, CannotContinue)), None) or next(
        (one for one in leaves if not isinstance(one, AmigrateError)), leaves[0]
    )
