"""What an error says beyond this machine."""

import re

from pyspark.errors import PySparkException

from headgate.jobs.disclosure import outward
from headgate.jobs.errors import HeadgateError, Interrupted, causes, texts_of


def said(error: BaseException) -> str:
    """Return what an error says without values of data; of one that others raised, which may quote any, its kind."""
    if isinstance(error, HeadgateError):
        text = outward(str(error))
        return f"{text} ({kind_of(error.__cause__)})" if "‹…›" in text and error.__cause__ else text
    if isinstance(error, Interrupted):
        return error.status
    return f"failed: {kind_of(error)} (the log of the run says more)"


def kind_of(error: BaseException) -> str:
    """Return the type of an error, and the condition that Spark names, or the type of what is behind it in Java."""
    kind = type(error).__name__
    condition = error.getCondition() if isinstance(error, PySparkException) else None
    behind = [
        m[1]
        for e in causes(error)
        for t in texts_of(e)
        for m in re.finditer(r"^(?:Caused by: )?[\w.]*?(\w+(?:Exception|Error)):", t, re.MULTILINE)
    ]
    named = condition or next((b for b in reversed(behind) if b != kind), None)
    return f"{kind}: {named}" if named else kind
