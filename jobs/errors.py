"""Errors that a user can act on, each with the exit code of its class.

HeadgateError           1  the program failed
├── UsageError          2  wrong usage or configuration: an option, a command, a column, a line of YAML
├── GateBlocked         3  a suite refused what was staged; nothing was published
├── InputMissing        4  what was named is not there or unreadable: a file, a table, a version, a release, a row
│   └── FileRefused        a file that an option of its source would let through
└── LostRace            5  another run won; safe to try again
    └── OtherRun           another run does this work
Interrupted           130  the user ended the program (Ctrl-C)
└── Terminated        143  the system asked it to end (SIGTERM)
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator


class HeadgateError(Exception):
    exit_code = 1


class UsageError(HeadgateError):
    exit_code = 2


class GateBlocked(HeadgateError):
    exit_code = 3


class InputMissing(HeadgateError):
    exit_code = 4


class FileRefused(InputMissing):
    """A file is not taken up as it is: what is wrong, the option that would let it through, what to do without it."""

    def __init__(self, problem: str, option: str, remedy: str) -> None:
        super().__init__(problem + option)
        self.problem, self.remedy = problem, remedy


class LostRace(HeadgateError):
    exit_code = 5


class OtherRun(LostRace):
    """Another run does the work: nobody needs to know but who started this one."""


FAILED = "source failed: "  # marks the line of an error on an executor that is for people


class SourceFailed(Exception):
    """Records cannot be read, where they are read: on an executor."""

    def __init__(self, message: str) -> None:
        super().__init__(FAILED + message)


def source_failure(error: BaseException) -> InputMissing | None:
    """The error as a source that cannot be read, in one line; None if it is something else."""
    marked = re.search(re.escape(FAILED) + r"(.*)", str(error))
    return InputMissing(marked[1].strip()) if marked else None


class Interrupted(BaseException):
    """No `Exception`, so that nothing that mends errors takes it for one; no KeyboardInterrupt, which py4j tells."""

    exit_code = 130
    status = "interrupted"


class Terminated(Interrupted):
    exit_code = 143
    status = "terminated"


received: list[Interrupted] = []  # what the handlers of signals raised


def ending(error: BaseException) -> BaseException:
    """Return the signal that ended the program, as whatever error it came out: where Java is gone too, many follow."""
    return received[0] if received else error


STORAGE: tuple[str, ...] = ("No space left on device", "Disk quota exceeded", "Read-only file system")
STORAGE += ("Permission denied", "Not a directory", "AccessDenied", "Mkdirs failed", "Input/output error")
READABLE = ("Permission denied", "Not a directory", "AccessDenied", "Input/output error")  # also while reading
LEAST_BYTES = 1 << 20  # of a file system that is not full
GONE = "FAILED_READ_FILE.FILE_NOT_EXIST"  # in Spark's words
PATH = re.compile(r"(?<=')[^'\n]*/[^'\n]*(?=')|(?:[a-z][a-z0-9]*:/{1,3}|/)[^\s'\"(),;\]]+")


# What clients of object stores say, and what it means.
STORES = (
    (r"NoSuchBucket|NO_SUCH_BUCKET|specified bucket does not exist", "there is no such bucket"),
    (r"ExpiredToken|token has expired|EXPIRED_TOKEN", "its credentials have expired: renew them"),
    (
        r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|SIGNATURE_DOES_NOT_MATCH|InvalidToken",
        "its credentials are not valid",
    ),
    (r"AccessDenied|ACCESS_DENIED|403 Forbidden|Status Code: 403", "access is denied, or there are no credentials"),
    (
        r"169\.254\.169\.254|Unable to load credentials|NoAwsCredentials|NoAuthWithAWS",
        "there are no credentials for it",
    ),
    (r"HTTP status 400\) during Head", "it refuses the request, as with expired credentials"),
    (
        r"Connect,|NETWORK_CONNECTION|Unable to connect|ConnectException|UnknownHostException|error sending request"
        r"|curlCode",
        "it does not answer: is the endpoint right?",
    ),
    (
        r"SlowDown|SLOW_DOWN|InternalError|INTERNAL_FAILURE|max_retries|SERVICE_UNAVAILABLE|HTTP status 5",
        "it keeps failing",
    ),
)
OF_A_STORE = re.compile(
    r"AWS Error|S3 error|S3Exception|s3a?://|amazon|object_store|Object at location|Error performing"
)
HOW_TO_SET = "store in the environment file, or AWS_* variables, say how it is reached"


def store_failure(texts: list[str], *places: str | None) -> InputMissing | None:
    """Return what clients of an object store said as one line that names the place; None if it is another error.

    Of several places the one is named whose bucket, and if possible whose folder, stands in the texts.
    """
    text = "\n".join(texts)
    why = next((meaning for said, meaning in STORES if re.search(said, text)), None)
    if why is None or not OF_A_STORE.search(text):
        return None
    remote = {p: p.partition("://")[2] for p in places if p and "://" in p}
    named = [p for p, path in remote.items() if path in text] or [
        p for p, path in remote.items() if re.search(rf"[/'\s]{re.escape(path.partition('/')[0])}['/?]", text)
    ]
    place = next(iter(named or remote), None) or next(
        iter(re.findall(r"s3a?://[^\s'\",:;]+", text)), "the object store"
    )
    return InputMissing(f"{place}: {why} ({HOW_TO_SET})")


def storage_failure(error: BaseException, lake: str, landing: str | None = None, *others: str) -> HeadgateError | None:
    """Return the error as a storage that cannot be used, in one line that names the place; None if it is another.

    The place is the one that the error names: the landing folder (`InputMissing`), the lake, or the path as it stands;
    where it names none, the one of these and of `others` that is full or read-only. A file of the lake that is gone is
    a lost race.
    """
    texts = [text for e in causes(error) for text in texts_of(e)]
    failed = store_failure(texts, lake, landing)
    if failed is not None:
        return failed
    lines = [line for text in texts for line in text.splitlines()]
    if lake and any(GONE in line and names(line, lake) for line in lines):
        return LostRace("a file of the lake was removed while it was read, as an erasure or a vacuum does; run again")
    why = next((s for line in lines for s in STORAGE if s.lower() in line.lower()), None)
    if why is None:
        return None
    telling = [line for line in lines if why.lower() in line.lower()]
    for named in (telling, lines):  # what the same line names is surer than what stands elsewhere
        root = max((r for r in (lake, landing) if r and any(names(line, r) for line in named)), key=len, default=None)
        path = next((p.rstrip(".:") for line in named for p in PATH.findall(line)), None)
        if root is not None and root == landing and why in READABLE:
            place = path if path and names(path, root) else root
            return InputMissing(f"{bare(place)} cannot be read: {why} (below the landing folder)")
        if root is not None and root == lake:
            return HeadgateError(f"the lake {lake} cannot be written: {why}. Published tables stay as they were")
        if path is not None and named is telling:
            return HeadgateError(f"{bare(root or path)} cannot be read or written: {why}")
    unusable = next((r for r in (lake, landing, *others, tempfile.gettempdir()) if r and is_unusable(r, why)), None)
    if unusable is not None and unusable == lake:
        return HeadgateError(f"the lake {lake} cannot be written: {why}. Published tables stay as they were")
    if unusable is not None:
        return HeadgateError(f"{unusable} cannot be written: {why}")
    return HeadgateError(
        f"a storage that the error does not name cannot be read or written: {why} (--debug shows the error)"
    )


def is_unusable(root: str, why: str) -> bool:
    """Return whether the file system of a folder, or of where it is to be, has no room left, or takes no writes."""
    if "://" in root:
        return False
    there = os.path.abspath(root)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    found = os.statvfs(there)
    return bool(found.f_flag & os.ST_RDONLY) if "Read-only" in why else found.f_bavail * found.f_frsize < LEAST_BYTES


def names(text: str, root: str) -> bool:
    """Return whether a text names a folder or what lies below it."""
    return re.search(re.escape(bare(root).rstrip("/")) + r"(?![^/\s'\"():,.\]])", text) is not None


def first_line(error: BaseException) -> str:
    """Return the first line that an error says, or its type where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def bare(path: str) -> str:
    """A path without the `file:` of Java's messages."""
    return re.sub(r"^file:/+", "/", path)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def texts_of(error: BaseException) -> Iterator[str]:
    """Return what an error says, and what Java's errors behind it say."""
    with contextlib.suppress(Exception):  # Java may be gone
        yield str(error)
        behind = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
        while behind is not None:
            yield str(behind.toString())
            behind = behind.getCause()
