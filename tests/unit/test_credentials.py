"""Senders' credentials read from files: rotation, what breaks on the way, and what nobody is admitted by."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from multidict import CIMultiDict
from structlog.testing import capture_logs

from alertrouter import credentials, telemetry
from alertrouter.credentials import SourceCredentials
from alertrouter.rules.load import read_rules
from alertrouter.rules.model import CredentialReferences, KeyReference, NamedReference, SigningReferences
from alertrouter.settings import read_secret
from alertrouter.web.auth import token_shown
from tests.waiting import until

SOURCE = "alertmanager/team-a"
PAGE = Path(__file__).parents[2] / "docs" / "credentials.md"
ENVIRON = {"AM_A_OLD": "old-token"}


def read(place: KeyReference) -> str | None:
    return read_secret(ENVIRON, env=place.env, file=place.file)


def wanted(new: Path) -> Mapping[str, CredentialReferences]:
    """Two tokens: one in a file, and an old one in a variable."""
    tokens = (
        NamedReference("new", KeyReference(file=str(new))),
        NamedReference("old", KeyReference(env="AM_A_OLD")),
    )
    return {SOURCE: CredentialReferences(tokens)}


def admitted(kept: SourceCredentials, token: str) -> str | None:
    """The name of the token that admits at present."""
    tokens = kept.in_force[SOURCE].tokens
    assert tokens is not None
    return token_shown(CIMultiDict({"Authorization": f"Bearer {token}"}), tokens)


@pytest.fixture
def kept(tmp_path: Path) -> SourceCredentials:
    (tmp_path / "new").write_text("new-token\n")
    kept = SourceCredentials(read)
    kept.put_in_force(wanted(tmp_path / "new"))
    return kept


def again(kept: SourceCredentials, tmp_path: Path) -> None:
    """Read everything once more, as is done every two seconds."""
    kept.put_in_force(wanted(tmp_path / "new"))


def test_two_are_in_force(kept: SourceCredentials) -> None:
    assert admitted(kept, "new-token") == "new"
    assert admitted(kept, "old-token") == "old"
    assert admitted(kept, "") is admitted(kept, "none") is None
    assert kept.warnings() == []


@pytest.mark.parametrize("broken", ["", "\n", "new-\x00token", "two\nlines", None, b"\xff\xfe", "a directory"])
def test_a_file_that_breaks_keeps_what_was_read_before(
    kept: SourceCredentials, tmp_path: Path, broken: str | bytes | None
) -> None:
    file = tmp_path / "new"
    file.unlink()
    if broken == "a directory":
        file.mkdir()
    elif broken is not None:
        file.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    with capture_logs() as lines:
        again(kept, tmp_path)
        again(kept, tmp_path)
    said = {"event": "a credential cannot be read; the one before stays in force", "log_level": "warning"}
    assert lines == [{**said, "source": SOURCE, "id": "new"}], "once, and never what stands there"
    assert (admitted(kept, "new-token"), admitted(kept, "old-token")) == ("new", "old")
    [warning] = kept.warnings()
    assert f"the credential new of {SOURCE} ({file})" in warning and "stays in force" in warning
    assert telemetry.CREDENTIALS_MISSING._value.get() == 1

    if file.is_dir():
        file.rmdir()
    file.write_text("newer-token")
    again(kept, tmp_path)
    assert (admitted(kept, "new-token"), admitted(kept, "newer-token")) == (None, "new")
    assert kept.warnings() == []
    assert telemetry.CREDENTIALS_MISSING._value.get() == 0


def test_one_that_was_never_there_admits_nobody(tmp_path: Path) -> None:
    kept = SourceCredentials(lambda _: None)
    kept.put_in_force(wanted(tmp_path / "new"))
    assert kept.in_force[SOURCE].tokens == ()
    assert admitted(kept, "") is None
    assert all("nobody is admitted by it" in warning for warning in kept.warnings())
    assert len(kept.warnings()) == 2


def test_one_that_is_no_longer_named_is_forgotten(kept: SourceCredentials, tmp_path: Path) -> None:
    (tmp_path / "new").unlink()
    kept.put_in_force({SOURCE: CredentialReferences((NamedReference("old", KeyReference(env="AM_A_OLD")),))})
    assert admitted(kept, "new-token") is None
    kept.put_in_force(wanted(tmp_path / "new"))
    assert admitted(kept, "new-token") is None, "it is not there, and what was forgotten does not come back"


async def test_a_swap_of_the_link_is_seen_without_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_LOOK_EVERY_S", 0.01)
    for version, token in (("..1", "token-one"), ("..2", "token-two")):  # as the kubelet lays out a mounted secret
        (tmp_path / version).mkdir()
        (tmp_path / version / "new").write_text(token)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "new").symlink_to("..data/new")
    kept = SourceCredentials(read)
    kept.put_in_force(wanted(tmp_path / "new"))
    watching = asyncio.create_task(kept.watch())
    assert admitted(kept, "token-one") == "new"

    (tmp_path / "..swap").symlink_to("..2")
    (tmp_path / "..swap").replace(tmp_path / "..data")
    await until(lambda: admitted(kept, "token-two") == "new")
    assert admitted(kept, "token-one") is None
    watching.cancel()


def test_secrets_of_a_signature_are_read_as_tokens_are(tmp_path: Path) -> None:
    (tmp_path / "s1").write_text("signing secret\n")
    secrets = (
        NamedReference("s1", KeyReference(file=str(tmp_path / "s1"))),
        NamedReference("s2", KeyReference(env="NOT_SET")),
    )
    kept = SourceCredentials(read)
    kept.put_in_force({SOURCE: CredentialReferences(signing=SigningReferences("grafana", secrets))})
    signing = kept.in_force[SOURCE].signing
    assert signing is not None and [(each.name, each.value) for each in signing.secrets] == [("s1", b"signing secret")]
    assert kept.in_force[SOURCE].tokens is None, "no token is asked for"
    assert len(kept.warnings()) == 1


def test_what_the_page_shows_loads(tmp_path: Path) -> None:
    [shown] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "alertrouter.yaml").write_text(shown)
    (tmp_path / "router.yaml").write_text("catch_all: {route_to: unrouted}\n")
    reading = read_rules(tmp_path)
    assert reading.problems == () and reading.ruleset is not None
    team, grafana = (reading.ruleset.credentials[source] for source in (SOURCE, "grafana/prod"))
    assert [named.name for named in team.tokens or ()] == ["2026-11", "old"] and team.header == "X-Team-Token"
    assert grafana.signing is not None and grafana.signing.timestamp_header == "X-Grafana-Time"
    assert grafana.tokens is None
