"""`alertrouter token new`: a token for a sender or for the API, and what to write on both sides."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from textwrap import dedent

import click

from alertrouter.rules.build_credentials import is_secret_name, is_source

#: 256 bits. Its first word lets scanners for secrets find it: https://docs.github.com/en/code-security/secret-scanning
_PREFIX = "alertrouter_"
_BYTES = 32

_FOR_SOURCE = """\
    Put it into a file of its own that alertrouter can read, nothing else beside it, and name that file in alertrouter.yaml:

      sources:
        {source}:
          tokens:
            - {{name: "{name}", file: /run/secrets/{file}}}

    To replace a token, add the new one beside it, change the sender, and take the old one out once
    alertrouter_webhook_credentials_total{{source="{source}",token="OLD"}} no longer grows.
"""
_FOR_EVERYBODY = """\
    Add it to ALERTROUTER_WEBHOOK_TOKENS, or to the file that ALERTROUTER_WEBHOOK_TOKENS_FILE names, after a comma.
    It admits every sender that has no token of its own. For one sender alone: alertrouter token new --for alertmanager/team-a
"""
_FOR_API = """\
    Add it to ALERTROUTER_API_{role}_TOKENS, or to the file that ALERTROUTER_API_{role}_TOKENS_FILE names, after a comma.
    Commands such as `alertrouter history` send the first one of it.
"""
_SENDERS = {
    "alertmanager": """\
        receivers:
          - name: alertrouter
            webhook_configs:
              - url: https://ALERTROUTER/webhooks/{source}
                send_resolved: true
                http_config: {{authorization: {{credentials_file: /etc/alertmanager/alertrouter-token}}}}
    """,
    "datadog": """\
        URL:             https://ALERTROUTER/webhooks/{source}
        Custom headers:  {{"Authorization": "Bearer $ALERTROUTER_TOKEN"}}
        with the token in the hidden custom variable $ALERTROUTER_TOKEN
    """,
}
_ANY = """\
    URL:     https://ALERTROUTER/{path}
    Header:  Authorization: Bearer <the token>
"""


@click.group("token")
def command() -> None:
    """Tokens for senders and for the API."""


@command.command("new")
@click.option(
    "--for", "source", metavar="SOURCE", help="One sender, such as alertmanager/team-a. Left out: all senders."
)
@click.option("--api", type=click.Choice(["read", "operate"]), help="For the API instead: to look, or to change too.")
@click.option("--name", help="What metrics call it.  [default: the date]")
def new(source: str | None, api: str | None, name: str | None) -> None:
    r"""Make a token of 256 random bits.

    \b
    alertrouter token new --for alertmanager/team-a > am-a
    alertrouter token new --api operate

    The token alone goes to standard output, so that it can go to a file; what to write on both sides to standard error.
    """
    if source and api:
        raise click.UsageError("--for or --api, not both")
    if name and not source:
        raise click.UsageError("--name needs --for: only the tokens of one sender have names")
    if source and not is_source(source):
        raise click.BadParameter("a sender or sender/name, such as alertmanager/team-a", param_hint="--for")
    name = name or f"{datetime.now(UTC):%Y-%m-%d}"
    if not is_secret_name(name):
        raise click.BadParameter("letters, digits, `-`, `_` and `.`, at most 64", param_hint="--name")
    click.echo(_PREFIX + secrets.token_urlsafe(_BYTES))
    click.echo(_instructions(source, api, name), err=True)


def _instructions(source: str | None, api: str | None, name: str) -> str:
    if api:
        ours, theirs = _FOR_API.format(role=api.upper()), _ANY.format(path="api/v1/history")
    elif source:
        ours = _FOR_SOURCE.format(source=source, name=name, file=f"{source.replace('/', '-')}-{name}")
        template = _SENDERS.get(source.partition("/")[0], _ANY)
        theirs = template.format(source=source, path=f"webhooks/{source}")
    else:
        ours, theirs = _FOR_EVERYBODY, _ANY.format(path="webhooks/SENDER")
    return f"\nHere:\n\n{_indented(ours)}\nThere:\n\n{_indented(theirs)}"


def _indented(text: str) -> str:
    return "".join(f"  {line}".rstrip() + "\n" for line in dedent(text).splitlines())
