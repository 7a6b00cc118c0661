"""What the project's own files promise: pinned packages, a whole wheel, one name per setting, clear words on set-up."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from shutil import which
from zipfile import ZipFile

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from alertrouter.rules.load import load_rules
from alertrouter.settings import unknown_variables

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PACKAGE = ROOT / "src" / "alertrouter"


def pins(lock: Path) -> dict[str, str]:
    """Each requirement of a lock: name to the rest of its line, continuation lines joined, comments left out."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n?", "", lock.read_text())).splitlines()
    return {name: rest for name, _, rest in (line.partition("==") for line in lines)}


def version(pin: str) -> str:
    return pin.split()[0]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_each_requirement_is_one_version_with_hashes(lock: Path) -> None:
    assert len(pins(lock)) > 1
    for name, pin in pins(lock).items():
        assert re.fullmatch(r"[a-z0-9-]+", name), name
        assert re.fullmatch(r"[\w.]+( ; [^#@]+?)?( +--hash=sha256:[0-9a-f]{64})+", pin), f"{name}=={pin}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_address(lock: Path) -> None:
    assert not re.search(r"://| @ |index-url|find-links|trusted-host|file:", lock.read_text())


def test_the_locks_agree_and_the_tests_run_what_is_shipped() -> None:
    runtime, build, test = (pins(ROOT / "requirements" / f"{name}.txt") for name in ("runtime", "build", "test"))
    for shipped in (runtime, build):
        assert {name: version(pin) for name, pin in shipped.items()}.items() <= {
            name: version(pin) for name, pin in test.items()
        }.items()


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^A-Za-z0-9-]", requirement)[0].lower() for requirement in requirements}

    assert names(project["dependencies"]) <= pins(ROOT / "requirements" / "runtime.txt").keys()
    assert names(project["optional-dependencies"]["test"]) <= pins(ROOT / "requirements" / "test.txt").keys()


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    source = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {Path(name).suffix for name in source} >= {".py", ".lua", ".lark"}
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("alertrouter/")}
        licences = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
    assert packed == source
    assert len(licences) == 1


def variables_in(path: Path) -> set[str]:
    return set(re.findall(r"ALERTROUTER_[A-Z_]+", path.read_text()))


@pytest.mark.parametrize("name", ["Dockerfile", "helm/alertrouter/templates/deployment.yaml"])
def test_image_and_chart_set_only_settings_that_exist(name: str) -> None:
    used = variables_in(ROOT / name)
    assert "ALERTROUTER_LISTEN" in used
    assert unknown_variables(dict.fromkeys(used, "")) == []


def test_the_rules_the_chart_starts_with_load(tmp_path: Path) -> None:
    for name, text in yaml.safe_load((ROOT / "helm/alertrouter/values.yaml").read_text())["rules"]["files"].items():
        (tmp_path / name).write_text(text)
    assert load_rules(tmp_path).services == {}


def test_the_chart_and_the_package_have_one_version() -> None:
    chart = yaml.safe_load((ROOT / "helm/alertrouter/Chart.yaml").read_text())
    (shipped,) = re.findall(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text())
    assert chart["appVersion"] == shipped


# tools/system-packages, on a machine made of the few commands it uses


class Machine:
    """A directory that is all of PATH: real shell commands, and stand-ins that write down how they were called."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.calls = root / "calls"
        self.bin.mkdir()
        self.calls.touch()
        for command in ("sh", "env", "mktemp", "rm", "cat", "touch"):
            (self.bin / command).symlink_to(str(which(command)))

    def has(self, command: str, script: str = "") -> None:
        """Put a stand-in on PATH; `script` is shell text, run after the call was noted."""
        path = self.bin / command
        path.write_text(f'#!/bin/sh\necho "{command} $*" >>{self.calls}\n{script}\n')
        path.chmod(0o755)

    def system_packages(self, *programs: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / "sh", ROOT / "tools" / "system-packages", *programs],
            env={"PATH": str(self.bin)},
            capture_output=True,
            text=True,
            timeout=30,
        )

    def apt_calls(self) -> list[str]:
        """The apt-get verbs called, in order."""
        return re.findall(r"(?m)^apt-get.*?\b(install|update)\b", self.calls.read_text())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.has("id", "echo 0")
    return machine


def test_nothing_is_done_or_said_when_nothing_is_missing(machine: Machine) -> None:
    machine.has("redis-server")
    machine.has("apt-get")
    done = machine.system_packages("redis-server")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.apt_calls() == []


def test_root_installs_the_missing_packages_once_each(machine: Machine) -> None:
    machine.has("redis-server")
    machine.has("apt-get")
    done = machine.system_packages("redis-server", "prometheus", "promtool", "prometheus-alertmanager", "amtool")
    assert done.returncode == 0
    (call,) = [line for line in machine.calls.read_text().splitlines() if line.startswith("apt-get")]
    assert call.endswith("--no-install-recommends prometheus prometheus-alertmanager")


def test_the_package_list_is_fetched_only_when_the_first_try_fails(machine: Machine, tmp_path: Path) -> None:
    fetched = tmp_path / "fetched"
    machine.has("apt-get", f'case " $* " in *" update "*) touch {fetched} ;; *) [ -e {fetched} ] ;; esac')
    assert machine.system_packages("redis-server").returncode == 0
    assert machine.apt_calls() == ["install", "update", "install"]


def test_without_apt_the_missing_packages_are_named_with_the_command(machine: Machine) -> None:
    done = machine.system_packages("redis-server", "promtool")
    assert done.returncode == 1
    assert "Missing: redis-server prometheus." in done.stderr
    assert "apt-get install --no-install-recommends redis-server prometheus\n" in done.stderr


def test_without_root_and_sudo_the_missing_packages_are_named(machine: Machine) -> None:
    machine.has("id", "echo 1000")
    machine.has("apt-get")
    machine.has("sudo", "echo a password is required >&2; exit 1")
    done = machine.system_packages("amtool")
    assert done.returncode == 1
    assert "Installing needs root" in done.stderr
    assert "Missing: prometheus-alertmanager." in done.stderr
    assert machine.apt_calls() == []


def test_sudo_that_asks_nothing_is_used(machine: Machine) -> None:
    machine.has("id", "echo 1000")
    machine.has("apt-get")
    machine.has("sudo", 'shift; [ "$1" = true ] || exec "$@"')
    assert machine.system_packages("amtool").returncode == 0
    assert machine.apt_calls() == ["install"]
    assert "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install" in machine.calls.read_text()


def test_a_failing_apt_is_quoted(machine: Machine) -> None:
    machine.has("apt-get", "echo E: no space left >&2; exit 100")
    done = machine.system_packages("redis-server")
    assert done.returncode == 1
    assert "E: no space left" in done.stderr
    assert "Missing: redis-server." in done.stderr
