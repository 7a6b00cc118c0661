"""The command line: one file per command, loaded when it is called."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

import click

from alertrouter import __version__


class _Commands(click.Group):
    """Finds `alertrouter.cli.<name>.command` by file name, so that no command pays for another's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name.replace("_", "-") for module in iter_modules(__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = f"{__name__}.{cmd_name.replace('-', '_')}"
        if not cmd_name.replace("-", "_").isidentifier() or find_spec(module) is None:
            return None
        command = import_module(module).command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="alertrouter")
def main() -> None:
    """alertrouter: between your alerts and your pager."""
