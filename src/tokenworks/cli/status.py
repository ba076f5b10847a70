"""`tokenworks status`: is it ready, and what is not."""

from typing import Any

import typer
from rich.text import Text

from tokenworks.cli import connection, output
from tokenworks.cli.connection import DEFAULT_URL, AsJson, Url
from tokenworks.client import ClientError

COLOURS = {"ready": "green", "degraded": "yellow"}


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: tokenworks status --url http://127.0.0.1:8080")(status)


def status(url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Show whether the server answers, component by component. Exit code 1 while it is not ready."""

    async def ask() -> tuple[int, dict[str, Any]]:
        async with (
            connection.anonymous(url) as client,
            client.stream("GET", "/readyz", idle=10, check=False) as response,
        ):
            try:
                report = await response.json(content_type=None)
            except ValueError as error:
                raise ClientError(502, f"{url} is no Tokenworks server: /readyz says no JSON") from error
            return response.status, report

    code, report = connection.run(ask())
    if json:
        output.print_json({"url": url, **report})
    else:
        output.console.print(Text.assemble((report["status"], COLOURS.get(report["status"], "red")), f"  {url}"))
        output.print_table(
            ("COMPONENT", "STATE", "DETAIL"), (_row(*each) for each in report["components"].items()), wrap=("DETAIL",)
        )
    if code != 200:
        raise typer.Exit(output.FAILED)


def _row(name: str, component: dict[str, Any] | bool) -> tuple[object, ...]:
    if isinstance(component, bool):
        return name, "yes" if component else "no", ""
    state = Text("ok", style="green") if component.get("ok") else Text("not ok", style="red")
    return name, state, _detail(component)


def _detail(component: dict[str, Any]) -> str:
    """The reason first, then the other facts; replicas by id and state."""
    parts = [str(component["reason"])] if component.get("reason") else []
    for fact, value in component.items():
        if fact == "upstreams":
            parts += [f"{each['id']} {each['state']}{': ' if each['reason'] else ''}{each['reason']}" for each in value]
        elif not isinstance(value, bool) and fact != "reason":
            parts.append(f"{fact} {value}")
    return ", ".join(parts)
