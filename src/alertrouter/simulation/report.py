"""How tests went, as people and as other programs read it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import yaml

from alertrouter.rules.model import RuleTrace
from alertrouter.rules.times import Instant
from alertrouter.rules.tracing import traced
from alertrouter.simulation.cases import Case, Step, place
from alertrouter.simulation.check import Difference
from alertrouter.simulation.coverage import FileCoverage, share
from alertrouter.simulation.mutants import Mutant
from alertrouter.simulation.play import Came
from alertrouter.simulation.run import Failure, Result
from alertrouter.simulation.schema import Ending, span_text

#: How much of one value is worth reading where nobody asked for all of it, in characters.
_SHOWN = 200
#: Endings in which rules had no part, and what follows from them alone.
_UNJUDGED = frozenset({Ending.DUPLICATE, Ending.STALE, Ending.REFUSED, Ending.IGNORED})
_SAID_BY_OUTCOME = frozenset({"outcome", "answer", "event", "events", "open", "alerts"})
#: What XML 1.0 cannot hold: https://www.w3.org/TR/xml/#charsets
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_text(result: Result, *, whole: bool) -> Iterator[str]:
    """What went wrong in one test. whole: every value in full, and why it came so."""
    for failure in result.failures:
        first = failure.differences[0]
        file, line, column = place(result.case.document, first.path)
        yield f"{file}:{line}:{column}: {result.case.name}: {_where(result.case, failure.played.step)}"
        several = len(failure.played.came) > 1
        for _, group in groupby(failure.differences, lambda each: id(each.about)):
            of_one = list(group)
            if several and (about := of_one[0].about) is not None:
                yield f"  {about.values['dedup_key'] or about.values['outcome']}"
            for each in of_one:
                yield f"  - {each.name}: {shown(each.expected, whole=whole)}"
                yield f"  + {each.name}: {shown(each.came, whole=whole)}"
        if whole:
            yield from (f"  {line}" for line in _why(failure))
        yield ""


def _where(case: Case, step: Step) -> str:
    return f"steps[{step.number}], {span_text(step.at - case.start)} after the start: {step.words}"


class _OneLine(yaml.SafeDumper):
    """Writes what cannot be printed as escapes, line ends among it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_OneLine.add_representer(str, _OneLine.represent_text)


def shown(value: Any, *, whole: bool = False) -> str:
    """A value as it can be written into a test."""
    text = yaml.dump(
        [value], Dumper=_OneLine, default_flow_style=True, allow_unicode=True, width=2**31, sort_keys=False
    )
    text = text.strip()[1:-1]
    return text if whole or len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _why(failure: Failure) -> Iterator[str]:
    """For each alert that went otherwise: how it stands, and every rule that it passed."""
    about = [each.about for each in failure.differences if each.about is not None] or failure.played.came[:1]
    for number, came in enumerate(about):
        if any(came is other for other in about[:number]):
            continue
        yield f"why: {_stands(came)}"
        names = {each.name.partition(".")[0] for each in failure.differences}
        was_judged = came.values["outcome"] not in _UNJUDGED or not names <= _SAID_BY_OUTCOME
        if came.judged is not None and was_judged:
            missed = _missed(failure.differences)
            yield from (f"  {line}" for line in _traced(came.judged.trace(), missed))


def _stands(came: Came) -> str:
    """How the alert stands, in words."""
    values, judged = came.values, came.judged
    match values["outcome"]:
        case Ending.DUPLICATE:
            return "the same as it was last heard, within the dedup window"
        case Ending.STALE:
            return "older than what was heard of it since"
        case Ending.SUPPRESSED | Ending.DROPPED as outcome:
            return f"{outcome} by {values['rule']}: {values['reason']}"
        case Ending.SUSPENDED if judged is not None:
            return f"held back for {span_text(judged.decision.suspend_ms)}, unless it is resolved by then"
        case Ending.REFUSED:
            return f"its sender was answered {values['answer']}" + (f": {values['reason']}" if values["reason"] else "")
        case Ending.IGNORED:
            return str(values["reason"])
        case Ending.PENDING:
            return "not taken by PagerDuty yet"
        case None:
            return "no alert was heard yet"
        case outcome:
            return f"{outcome} as {values['severity']} {values['priority']}".rstrip()


def _missed(differences: Sequence[Difference]) -> set[str]:
    """Rules that were expected to match and did not."""
    missed: set[str] = set()
    for each in differences:
        if each.name.startswith("matched") or each.name == "rule":
            expected = each.expected if isinstance(each.expected, list) else [each.expected]
            came = each.came if isinstance(each.came, list) else [each.came]
            missed.update(str(name) for name in expected if name not in came)
    return missed


def _traced(trace: Sequence[RuleTrace], missed: set[str]) -> Iterator[str]:
    yield from traced(trace, missed=missed)
    for name in sorted(missed - {each.rule for each in trace}):
        yield f" >no  {name:28} not tried: a rule above it matched, or the alert did not come to its set"


def summary(results: Sequence[Result], seconds: float) -> str:
    """One line for all tests."""
    failed = sum(not result.passed for result in results)
    steps = sum(result.steps for result in results)
    went = f"{failed} failed, {len(results) - failed} passed" if failed else f"{len(results)} passed"
    return f"{went} ({steps} step{'s' * (steps != 1)}, {seconds:.2f} s)"


def coverage_text(files: Sequence[FileCoverage]) -> Iterator[str]:
    """The table, and what was not reached."""
    width = max((len(each.file) for each in files), default=0)
    yield f"{'coverage':{width}}  {'rules':>9}  {'conditions':>10}  {'catch-alls':>10}  {'all':>7}"
    for each in files:
        pairs = (_pair(each.rules, 9), _pair(each.conditions, 10), _pair(each.catch_alls, 10))
        yield f"{each.file:{width}}  {'  '.join(pairs)}  {_percent(share([each])):>7}"
    yield f"{'all':{width}}  {'':9}  {'':10}  {'':10}  {_percent(share(files)):>7}"
    unreached = [each for file in files for each in file.unreached]
    if unreached:
        yield ""
        yield from map(str, unreached)


def _pair(counts: tuple[int, int], width: int) -> str:
    return f"{f'{counts[0]}/{counts[1]}' if counts[1] else '-':>{width}}"


def _percent(value: float) -> str:
    return f"{value:.4g} %"


def score(total: int, survivors: int) -> float:
    """How many mutants were noticed, in percent; never 100 where one was not."""
    return 100.0 if not survivors else min(100 * (total - survivors) / total, 99.99)


def mutation_text(total: int, survivors: Sequence[Mutant]) -> Iterator[str]:
    """The mutants that no test noticed, and the score."""
    yield from map(str, survivors)
    if survivors:
        yield ""
    noticed = total - len(survivors)
    yield f"mutation score {_percent(score(total, len(survivors)))}: {noticed} of {total} changes were noticed"


def as_json(
    results: Sequence[Result],
    seconds: float,
    files: Sequence[FileCoverage] | None,
    mutation: tuple[int, Sequence[Mutant]] | None,
) -> dict[str, Any]:
    """All of it. `files` and `mutation` are left out where they are None."""
    failed = sum(not result.passed for result in results)
    told: dict[str, Any] = {
        "passed": len(results) - failed,
        "failed": failed,
        "steps": sum(result.steps for result in results),
        "seconds": round(seconds, 3),
        "tests": [_result(each) for each in results],
    }
    if files is not None:
        told["coverage"] = {
            "percent": share(files),
            "files": [
                {
                    "file": each.file,
                    "rules": _counts(each.rules),
                    "conditions": _counts(each.conditions),
                    "catch_alls": _counts(each.catch_alls),
                    "unreached": [
                        {
                            "line": one.line,
                            "column": one.column,
                            "kind": one.kind,
                            "rule": one.rule,
                            "message": one.message,
                        }
                        for one in each.unreached
                    ],
                }
                for each in files
            ],
        }
    if mutation is not None:
        total, survivors = mutation
        told["mutation"] = {
            "score": score(total, len(survivors)),
            "mutants": total,
            "survivors": [
                {
                    "file": each.file,
                    "line": each.line,
                    "column": each.column,
                    "what": each.shown,
                    "rule": each.rule,
                    "orchestration": each.orchestration,
                    "change": each.change,
                }
                for each in survivors
            ],
        }
    return told


def _counts(counts: tuple[int, int]) -> Mapping[str, int]:
    return {"reached": counts[0], "all": counts[1]}


def _result(result: Result) -> dict[str, Any]:
    file, line, column = result.case.place
    return {
        "name": result.case.name,
        "file": file,
        "line": line,
        "column": column,
        "passed": result.passed,
        "steps": result.steps,
        "seconds": round(result.seconds, 4),
        "failures": [_failure(result.case, each) for each in result.failures],
    }


def _failure(case: Case, failure: Failure) -> dict[str, Any]:
    step = failure.played.step
    differences = []
    for each in failure.differences:
        file, line, column = place(case.document, each.path)
        where = {"file": file, "line": line, "column": column}
        differences.append({"name": each.name, "expected": each.expected, "came": each.came, **where})
    return {
        "step": step.number,
        "at": str(Instant(step.at)),
        "differences": differences,
        "why": list(_why(failure)),
    }


def as_junit(results: Sequence[Result], seconds: float) -> str:
    """The XML that continuous integration reads, one suite for each file."""
    suites = ElementTree.Element("testsuites", name="alertrouter test", time=f"{seconds:.3f}")
    for file, of_file in groupby(results, lambda result: result.case.document.file):
        group = list(of_file)
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=file,
            tests=str(len(group)),
            failures=str(sum(not each.passed for each in group)),
            errors="0",
            time=f"{sum(each.seconds for each in group):.3f}",
        )
        for each in group:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                name=_xml(each.case.name),
                classname=_xml(file),
                file=_xml(file),
                line=str(each.case.place[1]),
                time=f"{each.seconds:.3f}",
            )
            if not each.passed:
                text = "\n".join(as_text(each, whole=True))
                names = ", ".join(dict.fromkeys(one.name for every in each.failures for one in every.differences))
                failure = ElementTree.SubElement(
                    case, "failure", type="difference", message=_xml(f"otherwise: {names}")
                )
                failure.text = _xml(text)
    suites.set("tests", str(len(results)))
    suites.set("failures", str(sum(not each.passed for each in results)))
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
