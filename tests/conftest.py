"""What all tests share: alerts, an owned clock, real servers. A missing real part skips here and fails in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.reliability.table import PROPERTY, Row, render

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def loose_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command says of logging in one test is nothing to the next one."""
    before, configure = structlog.get_config(), structlog.configure
    monkeypatch.setattr(
        structlog, "configure", lambda **said: configure(**{**said, "cache_logger_on_first_use": False})
    )
    yield
    configure(**before)


def program(name: str) -> str:
    """Path of a program the test needs for real."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed; `make test` installs it"
        if os.environ.get("ALERTROUTER_TEST_REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis, Debian's, on a unix socket, durable as in production."""
    folder = tmp_path_factory.mktemp("redis")
    socket = folder / "s"
    server = subprocess.Popen(
        [
            program("redis-server"),
            *("--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", ""),
            *("--appendonly", "yes", "--logfile", str(folder / "log")),
        ]
    )
    _wait_for(socket, server, folder / "log")
    yield f"unix://{socket}"
    server.terminate()
    server.wait(10)


def _wait_for(socket: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"redis-server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.01)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures of reliability runs. Here, because xdist's controller knows no other conftest."""
    rows = [
        Row(*row)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, row in report.user_properties
        if name == PROPERTY
    ]
    if rows:
        terminalreporter.section("reliability", sep="=")
        for line in render(list(dict.fromkeys(rows))):
            terminalreporter.line(line)
