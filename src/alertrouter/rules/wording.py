"""What is said about a rule file is read on terminals and in logs, and repeats words of that file."""

from __future__ import annotations

from alertrouter.shown import escaped

#: Longest message, in characters.
MESSAGE_LIMIT = 500


def shown(message: str) -> str:
    """The message in one printable line, and bounded: of a longer one both ends are kept.

    What it is about comes first, and what to write instead comes last.
    """
    message = escaped(message)
    if len(message) <= MESSAGE_LIMIT:
        return message
    half = MESSAGE_LIMIT // 2
    return f"{message[:half]}…{message[1 - half :]}"
