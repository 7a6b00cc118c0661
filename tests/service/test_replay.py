"""Recorded alerts against two rule sets: what is found, what the command makes of it, and that it is production's doing."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from alertrouter import telemetry
from alertrouter.alert import Alert
from alertrouter.history.entries import Duplicate, encode
from alertrouter.history.reading import Line, Recorded
from alertrouter.rules.load import load_rules
from alertrouter.settings import Settings
from alertrouter.simulation.replay import Contender, Difference, Kind, replay
from alertrouter.simulation.replay_report import as_json, as_markdown, failure, failures
from alertrouter.simulation.world import World, WorldClock, keys_for, throwaway_redis
from alertrouter.store.store import Dedup
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import serving, write_rules
from tests.service.test_history import run
from tests.service.test_http import PATH, idle

ROOT = Path(__file__).parents[2]
NOBODY = "catch_all: {}\n"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    telemetry.set_up_logging("console", "error")


def rule(name: str, when: str, then: str) -> str:
    return f"""
        sets:
          start:
            - rule: {name}
              owner: team-sre
              when: {when}
              then: {then}
    """


MUTED = rule("mute-disks", "event.summary matches part 'disk'", "{suppress: true, reason: noise, expires: 2099-01-01}")


def heard(at: int, alert: Alert) -> Recorded:
    return Recorded(at=at, id=alert.id, alert=alert)


def again(at: int, alert: Alert) -> Duplicate:
    return Duplicate(at=at, id=alert.id, status="firing")


def course(alert: Alert, at: int = NIGHT, minutes: int = 11) -> list[Line]:
    """The alert fires, is heard again every 5 minutes, and is over."""
    over = make_alert(alert.fingerprint, "resolved", severity=alert.event.severity, summary=alert.event.summary)
    repeats = [again(at + 5 * MINUTE * number, alert) for number in range(1, minutes // 5 + 1)]
    return [heard(at, alert), *repeats, heard(at + minutes * MINUTE, over)]


async def difference(tmp_path: Path, lines: Sequence[Line], before: str, after: str, **files: str) -> Difference:
    """What `after` as global.yaml does otherwise than `before`."""
    old, new = (
        Contender(load_rules(write_rules(tmp_path / name, {"global.yaml": text, **files})))
        for name, text in (("before", before), ("after", after))
    )
    return await replay(old, new, sorted(lines, key=lambda line: line.at))


async def test_the_same_rules_change_nothing(tmp_path: Path) -> None:
    found = await difference(tmp_path, course(make_alert()), NOBODY, NOBODY)
    assert (found.heard, found.duplicates, found.episodes) == (4, 2, 1)
    assert found.before == found.after
    assert (found.before.opened, found.before.events) == (1, 2), "one trigger, one resolve"
    assert not found.counts


async def test_a_critical_page_that_would_be_lost_is_named(tmp_path: Path) -> None:
    lines = [
        *course(make_alert("a", summary="disk full")),
        *course(make_alert("b")),
        *course(make_alert("c", severity="info", summary="disk")),
    ]
    found = await difference(tmp_path, lines, NOBODY, MUTED)
    assert found.counts == {Kind.FEWER: 2} and found.suppressed == 2
    [lost] = found.lost_critical
    assert (lost.id, lost.summary, lost.at, lost.rules) == ("alertmanager:a", "disk full", NIGHT, ("mute-disks",))
    assert lost.after.reason == "noise"
    assert (found.before.opened, found.after.opened) == (3, 1)
    assert failures(found, [failure("lost-critical"), failure("more-pages"), failure("fewer-pages=50%")]) == [
        "lost-critical: 1",
        "fewer-pages: 3 before, 1 after (-66.7 %), allowed 50 %",
    ]


async def test_what_would_page_anew_is_found_the_other_way_round(tmp_path: Path) -> None:
    found = await difference(tmp_path, course(make_alert(summary="disk full")), MUTED, NOBODY)
    assert found.counts == {Kind.MORE: 1} and found.unsuppressed == 1
    assert found.by_rule == {("mute-disks", Kind.MORE): 1}
    assert failures(found, [failure("more-pages=99%"), failure("unsuppressed")]) == [
        "more-pages: 0 before, 1 after (new), allowed 99 %",
        "unsuppressed: 1",
    ]


@pytest.mark.parametrize(
    ("then", "field", "before", "after"),
    [
        ("{severity: warning}", "severity", "critical", "warning"),
        ("{dedup_key: all-disks}", "dedup_key", "", "all-disks"),
    ],
)
async def test_what_pages_otherwise_has_moved(tmp_path: Path, then: str, field: str, before: str, after: str) -> None:
    changed = rule("disks", "event.summary matches part 'disk'", then)
    found = await difference(tmp_path, course(make_alert(summary="disk full")), NOBODY, changed)
    assert found.counts == {Kind.MOVED: 1}
    assert found.moves == {(field, before, after): 1}
    assert found.by_rule == {("+disks", Kind.MOVED): 1}
    assert found.downgraded_critical == (field == "severity")


async def test_an_alert_that_loses_its_service_is_newly_unrouted(tmp_path: Path) -> None:
    write_rules(tmp_path / "before")
    write_rules(tmp_path / "after", {"router.yaml": "sets: {start: []}\ncatch_all: {route_to: unrouted}\n"})
    before, after = (Contender(load_rules(tmp_path / name)) for name in ("before", "after"))
    found = await replay(before, after, course(make_alert(service="search")))
    assert found.new_unrouted == 1
    assert found.moves == {
        ("service", "search-service", ""): 1,
        ("destination", "pagerduty:search-service", "pagerduty:default"): 1,
    }


async def test_alerts_wait_in_their_own_time(tmp_path: Path) -> None:
    """Suspended for five minutes: one is over by then and pages nobody, the other pages five minutes later."""
    held = rule("hold", "event.summary matches part 'disk'", "{suspend: 5m}")
    lines = [
        *course(make_alert("a", summary="disk a"), minutes=4),
        *course(make_alert("b", summary="disk b"), minutes=20),
    ]
    found = await difference(tmp_path, lines, NOBODY, held)
    assert found.counts == {Kind.FEWER: 1}
    assert found.after.outcomes["cancelled_in_suspend"] == 1
    assert (found.later, found.earlier) == (1, 0)


async def test_what_is_held_back_at_the_end_is_sent_all_the_same(tmp_path: Path) -> None:
    held = rule("hold", "event.summary exists", "{suspend: 5m}")
    found = await difference(tmp_path, [heard(NIGHT, make_alert())], NOBODY, held)
    assert (found.after.opened, found.later) == (1, 1)


async def test_thresholds_count_in_the_alerts_own_time(tmp_path: Path) -> None:
    many = rule("many", "trigger_count over 5 minutes > 2", "{severity: info}")
    quick = [heard(NIGHT + number * SECOND, make_alert(f"f{number}")) for number in range(4)]
    slow = [heard(NIGHT + (number + 1) * HOUR, make_alert(f"s{number}")) for number in range(4)]
    found = await difference(tmp_path, [*quick, *slow], NOBODY, many)
    assert found.counts == {Kind.MOVED: 2}


async def test_what_is_muted_pages_when_its_window_ends(tmp_path: Path) -> None:
    until = "2027-01-10T03:30:00Z"
    short = rule("mute", "event.summary exists", f"{{suppress: true, reason: window, expires: '{until}'}}")
    found = await difference(tmp_path, course(make_alert(), minutes=60), NOBODY, short)
    assert found.counts == {} and (found.later, found.suppressed) == (1, 0)


async def test_a_record_is_forgotten_a_day_after_its_end_as_redis_forgets_it(tmp_path: Path) -> None:
    """A resolve of what nobody remembers is passed on; of what is known to be over it is a duplicate."""
    over = make_alert(status="resolved")
    soon = await difference(tmp_path, [*course(make_alert()), heard(NIGHT + 23 * HOUR, over)], NOBODY, NOBODY)
    late = await difference(tmp_path, [*course(make_alert()), heard(NIGHT + 25 * HOUR, over)], NOBODY, NOBODY)
    assert (soon.before.events, late.before.events) == (2, 3)


async def test_repeats_of_what_was_never_shown_whole_are_counted(tmp_path: Path) -> None:
    found = await difference(tmp_path, [again(NIGHT, make_alert("old")), *course(make_alert())], NOBODY, NOBODY)
    assert (found.unknown, found.heard) == (1, 4)


@pytest.mark.parametrize("mode", ["rolling", "fixed"])
@pytest.mark.parametrize("seed", range(3))
async def test_the_quick_way_does_what_the_plain_way_does(tmp_path: Path, seed: int, mode: str) -> None:
    """Random alerts of less than a day through the world as tests of rules use it, and through the replay: as many events."""
    chance = random.Random(seed)
    lines: list[Line] = []
    known: dict[str, Alert] = {}
    at = NIGHT
    for _ in range(250):
        at += chance.choice([SECOND, 10 * SECOND, MINUTE, 5 * MINUTE, 5 * MINUTE, 15 * MINUTE])
        name = f"f{chance.randrange(5)}"
        last = known.get(name)
        if last is not None and chance.random() < 0.6:
            lines.append(Duplicate(at=at, id=last.id, status=last.status.value))
            continue
        status = chance.choice(["firing", "firing", "resolved", "acknowledged"])
        severity = chance.choice(["critical", "warning"])
        details: dict[str, Any] = chance.choice([{"env": "staging"}, {"service": "payment"}, {"service": "search"}])
        known[name] = make_alert(name, status, severity=severity, started=at - chance.choice([0, HOUR]), **details)
        lines.append(heard(at, known[name]))
    text = """
        sets:
          start:
            - rule: mute
              owner: team-sre
              when: event.custom_details.env == 'staging'
              then: {suppress: true, reason: noise, expires: '2027-01-10T10:00:00Z'}
            - rule: hold
              when: event.custom_details.service == 'search'
              then: {suspend: 2m}
            - rule: many
              when: trigger_count over 10 minutes > 3
              then: {severity: info}
    """
    ruleset = load_rules(write_rules(tmp_path / "rules", {"global.yaml": text}))
    dedup = Dedup(mode=mode)
    found = await replay(Contender(ruleset, dedup), Contender(ruleset, dedup), lines)

    async with throwaway_redis() as (client, folder):
        clock = WorldClock(0)
        world = World(client, "plain", folder, clock, keys_for(ruleset), dedup=dedup)
        bodies: dict[str, Alert] = {}
        for line in lines:
            if isinstance(line, Recorded):
                bodies[line.id] = line.alert
            await world.advance_to(line.at)
            await world.hear(bodies[line.id])
        await world.advance_to(at + HOUR)
        plain = Counter(call.result.value for call in world.pagerduty.calls)
        world.close()
    assert plain.total() > 50, "it must show something"
    assert (found.before.events, found.before.opened) == (plain.total(), plain["opened"])
    assert found.before == found.after


# the command


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recorded.jsonl"
    lines = [*course(make_alert("a", summary="disk | full")), *course(make_alert("b"))]
    path.write_bytes(b"".join(encode(line) + b"\n" for line in lines))
    return path


@pytest.fixture
def sides(tmp_path: Path) -> tuple[str, str]:
    """Two rule directories; the second one mutes disks."""
    old = write_rules(tmp_path / "old", {"global.yaml": NOBODY})
    new = write_rules(tmp_path / "new", {"global.yaml": MUTED})
    return str(old), str(new)


async def test_the_command_prints_what_changes(recording: Path, sides: tuple[str, str]) -> None:
    old, new = sides
    code, output, errors = await run("replay", "--rules", new, "--against", old, str(recording))
    assert (code, errors) == (0, "")
    assert "1 critical page would be lost" in output and "disk | full [alertmanager:a]" in output
    code, output, _ = await run("replay", "--rules", new, "--against", old, "-o", "markdown", str(recording))
    assert code == 0 and "| disk \\| full \\[alertmanager:a\\] |" in output, "a table of Markdown stays one"
    code, output, _ = await run("replay", "--rules", new, "-o", "json", str(recording), ALERTROUTER_RULES=old)
    found = json.loads(output)
    assert found["changes"] == {"fewer": 1, "more": 0, "moved": 0}
    assert found["sides"]["before"]["incidents_opened"] == 2
    assert [each["dedup_key"] for each in found["lost_critical"]] == ["alertmanager:a"]


async def test_the_command_fails_on_what_it_is_told_to(recording: Path, sides: tuple[str, str]) -> None:
    old, new = sides
    code, output, _ = await run(
        "replay", "--rules", new, "--against", old, "--fail-on", "lost-critical", str(recording)
    )
    assert code == 1 and "Fails: lost-critical: 1" in output
    code, _, _ = await run(
        "replay", "--rules", new, "--against", old, "--fail-on", "more-pages=5%,new-unrouted", str(recording)
    )
    assert code == 0
    code, _, errors = await run("replay", "--rules", new, "--against", old, "--fail-on", "lost-critcal", str(recording))
    assert code == 2 and "lost-critical" in errors


async def test_damaged_lines_are_named_and_strict_refuses_them(recording: Path, sides: tuple[str, str]) -> None:
    old, new = sides
    with recording.open("ab") as file:
        file.write(b'{"kind":"heard"\n')
    number = len(recording.read_bytes().splitlines())
    code, output, errors = await run("replay", "--rules", new, "--against", old, str(recording))
    assert code == 0 and f"{recording}:{number}: " in errors and "1 lines cannot be read" in output
    code, _, errors = await run("replay", "--rules", new, "--against", old, "--strict", str(recording))
    assert code == 2 and f"{recording}:{number}: " in errors


async def test_rules_that_cannot_be_loaded_are_said(recording: Path, sides: tuple[str, str]) -> None:
    old, new = sides
    Path(new, "global.yaml").write_text("sets: [")
    code, _, errors = await run("replay", "--rules", new, "--against", old, str(recording))
    assert code == 1 and "global.yaml:" in errors


async def test_rules_of_a_commit_are_compared_with(recording: Path, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    repository = tmp_path / "repository"
    rules = write_rules(repository / "deep" / "rules", {"global.yaml": NOBODY})
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(repository), *arguments], check=True)  # noqa: ASYNC221 - nobody waits
    write_rules(rules, {"global.yaml": MUTED})
    code, output, errors = await run(
        "replay", "--rules", str(rules), "--against-git", "HEAD", "-o", "json", str(recording)
    )
    assert (code, errors) == (0, "")
    assert json.loads(output)["changes"]["fewer"] == 1
    code, _, errors = await run("replay", "--rules", str(rules), "--against-git", "nothing", str(recording))
    assert code == 2 and "git rev-parse" in errors
    code, _, errors = await run(
        "replay", "--rules", str(rules), "--against-git", "HEAD", str(recording), PATH="/nowhere"
    )
    assert code == 2 and "needs git" in errors


def in_git(*arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([program("git"), *identity, *arguments], check=True)


#: Stands in for GitHub's program: answers with the comments in `ids`, keeps what it is asked and the comment it is given.
GH = """#!/bin/sh
echo "$*" >>{0}/asked
if [ -e {0}/refused ]; then exit 1; fi
for each; do
  case "$each" in
    --paginate) cat {0}/ids 2>/dev/null; exit 0 ;;
    body=@*) cp "${{each#body=@}}" {0}/comment ;;
  esac
done
"""


def test_the_action_comments_what_a_pull_request_would_change(recording: Path, tmp_path: Path) -> None:
    origin, checkout, temp = tmp_path / "origin", tmp_path / "checkout", tmp_path / "temp"
    write_rules(origin / "rules", {"global.yaml": NOBODY})
    in_git("init", "-q", str(origin))
    in_git("-C", str(origin), "add", ".")
    in_git("-C", str(origin), "commit", "-qm", "base")
    base = subprocess.check_output(["git", "-C", str(origin), "rev-parse", "HEAD"], text=True).strip()
    write_rules(origin / "rules", {"global.yaml": MUTED})
    in_git("-C", str(origin), "commit", "-qam", "mute disks")
    in_git("clone", "-q", "--depth=1", f"file://{origin}", str(checkout))
    (temp / "alertrouter" / "bin").mkdir(parents=True)
    (temp / "alertrouter" / "bin" / "alertrouter").symlink_to(Path(sys.executable).with_name("alertrouter"))
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(GH.format(tmp_path))
    gh.chmod(0o755)
    steps = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["runs"]["steps"]
    [step] = (each for each in steps if "Replay" in each.get("name", ""))
    environ = {
        "PATH": f"{gh.parent}:/usr/bin:/bin",
        "RUNNER_TEMP": str(temp),
        "RULES": "rules",
        "EVENTS": str(recording),
        "FAIL_ON": "lost-critical",
        "BASE": base,
        "NUMBER": "7",
        "GH_TOKEN": "x",
    }
    by_github = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "GITHUB_REPOSITORY": "a/b"}
    assert step["env"].keys() == environ.keys() - {"PATH", "RUNNER_TEMP"}

    def act(**changed: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]],
            env=environ | by_github | changed,
            cwd=checkout,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        # what a program prints is between two lines that keep GitHub from taking it for commands
        output, marked = re.subn(r"::stop-commands::([0-9a-f]{32})\n::\1::\n", "", done.stdout)
        assert marked == ("::notice::" not in output and changed.get("EVENTS") != "")
        return done.returncode, output

    def asked() -> list[str]:
        path = tmp_path / "asked"
        asked = path.read_text().splitlines()
        path.unlink()
        return [line.partition(" --field")[0] for line in asked]

    assert act(EVENTS="") == (0, "") and not (tmp_path / "summary").exists()
    for nothing in ("", "0" * 40):
        code, output = act(BASE=nothing)
        assert code == 0 and output.startswith("::notice::") and not (tmp_path / "asked").exists()
    assert act() == (1, "")
    mark, _, comment = (tmp_path / "comment").read_text(encoding="utf-8").partition("\n")
    assert mark == "<!-- alertrouter replay -->"
    assert "1 critical page would be lost" in comment and "disk \\| full" in comment
    assert (tmp_path / "summary").read_text(encoding="utf-8") == comment
    look, write = asked()
    assert look.startswith("api --paginate repos/a/b/issues/7/comments ") and mark in look
    assert write == "api --method POST repos/a/b/issues/7/comments"
    (tmp_path / "ids").write_text("41\n42\n")
    assert act(FAIL_ON="") == (0, "")
    assert asked()[1:] == ["api --method PATCH repos/a/b/issues/comments/41"]
    (tmp_path / "refused").touch()
    for rule, expected in (("lost-critical", 1), ("", 0)):
        code, output = act(FAIL_ON=rule)
        assert code == expected and output.startswith("::warning::") and "pull-requests: write" in output


def test_the_example_of_the_documentation_prints_what_it_says(tmp_path: Path) -> None:
    example = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8").partition("## An example\n")[2]
    commands, _, rest = example.partition("<!-- printed by the command above -->\n\n")
    printed = rest.partition("\n## How fast")[0]
    shutil.copytree(ROOT / "rules", tmp_path / "rules")
    for name in ("tools", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(re.findall(r"```sh\n(.*?)```", commands, re.DOTALL))],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert re.sub(r"^##", "###", done.stdout, flags=re.MULTILINE).strip() == printed.strip()


async def test_what_a_service_recorded_can_be_replayed(
    settings: object, sides: tuple[str, str], tmp_path: Path
) -> None:

    assert isinstance(settings, Settings)
    old, _ = sides
    quiet = str(write_rules(tmp_path / "quiet", {"global.yaml": MUTED.replace("part 'disk'", "part 'payment'")}))
    async with serving(settings) as client:
        for _ in range(3):
            await client.post(PATH, alertmanager_body(alertmanager_alert()))
            await idle(client)
        await client.post(PATH, alertmanager_body(alertmanager_alert(status="resolved")))
        await idle(client)
        listen = client.service.url.removeprefix("http://")
        _, recorded, _ = await run("history", "--since", "1h", "-o", "jsonl", ALERTROUTER_LISTEN=listen)
    path = tmp_path / "recorded.jsonl"
    path.write_text(recorded)
    code, output, errors = await run("replay", "--rules", quiet, "--against", old, "-o", "json", str(path))
    assert (code, errors) == (0, "")
    found = json.loads(output)
    assert (found["heard"], found["duplicates"], found["episodes"]) == (4, 2, 1)
    assert found["sides"]["before"]["events_sent"] == 2, "what the service sent"
    assert len(found["lost_critical"]) == 1


async def test_the_report_in_markdown_is_one_document(tmp_path: Path) -> None:
    found = await difference(tmp_path, course(make_alert(summary="disk\nfull <b>")), NOBODY, MUTED)
    text = as_markdown(found, ("main", "rules"), 0, [])
    assert text.startswith("## Replay of 4 alerts: `rules` against `main`\n")
    assert "disk full &lt;b>" in text
    assert json.loads(json.dumps(as_json(found, ("main", "rules"), 0, [])))["before"] == "main"
