"""`make fuzz`: inputs of one target after the other, from a seed, and each way in which they break it."""

from __future__ import annotations

import argparse
import secrets
import sys
from time import monotonic

from tests.fuzz.inputs import find
from tests.fuzz.targets import TARGETS
from tests.fuzz.wire import post_in_rounds

#: Bodies by way of HTTP, to a running alertrouter. Needs redis-server.
HTTP = "http"
#: A line about how far it is, every so many inputs.
_STEP = 100_000


def main() -> int:
    """Returns the exit code: 1 where something broke."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument(
        "target", nargs="*", choices=[[], *TARGETS, HTTP], help=f"what reads; if left out all but {HTTP}"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--first", type=int, default=0, help="go on at the input of this number")
    parser.add_argument("--count", type=int, default=20_000, help="inputs of each target")
    given = parser.parse_args()
    if given.target == [HTTP]:
        faults = post_in_rounds("redis-server", given.seed, given.first, given.count, _say)
        _say("\n".join(faults))
        return int(bool(faults))
    broken = [_run(name, given.seed, given.first, given.count) for name in given.target or TARGETS]
    return int(any(broken))


def _run(name: str, seed: int, first: int, count: int) -> int:
    """In how many ways the target broke."""
    began = monotonic()
    at, known = first, set[str]()
    while at < first + count:
        ends = min(first + count, at - at % _STEP + _STEP)
        crasher = find(TARGETS[name], seed, at, ends - at, known)
        if crasher is not None:
            known.add(crasher.fault.place)
            ends = crasher.number + 1
            _say(str(crasher))
        at = ends
        _say(
            f"{name}: {at - first:,} inputs of seed {seed} from {first} on, {len(known)} ways to break it, {monotonic() - began:.0f} s"
        )
    return len(known)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
