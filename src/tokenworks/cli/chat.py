"""`tokenworks chat`: talk to a model in the terminal, or send one message through a pipe."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import typer
from rich.text import Text

from tokenworks.cli import connection, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.conversation import Answer, Conversation
from tokenworks.client import Client, ClientError

HELP = "/system TEXT sets the instructions, /reset forgets the conversation, /exit (or Ctrl-D) leaves."


def register(app: typer.Typer) -> None:
    app.command(epilog="Examples: tokenworks chat   |   echo 'Name three rivers.' | tokenworks chat")(chat)


def chat(
    message: Annotated[str | None, typer.Argument(help="Send this one message and leave.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Which model; the first one by default.")] = None,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0: always the likeliest token.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Talk to a model. With a message, or text from a pipe, it answers once."""
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read().strip()
        if not message:
            raise output.CommandFailed("nothing came through the pipe: give a message", output.USAGE)
    if message is None and json:
        raise output.CommandFailed("--json answers one message: give it as argument or through a pipe", output.USAGE)
    sampling = {"temperature": temperature, "max_tokens": max_tokens}
    given = {name: value for name, value in sampling.items() if value is not None}
    client = connection.caller(url, key, data_dir)

    async def talk() -> None:
        async with client:
            conversation = Conversation(model or await _first_model(client), system, given)
            if message is not None:
                await _answer_once(client, conversation, message, json)
            else:
                await _converse(client, conversation)

    connection.run(talk())


async def _first_model(client: Client) -> str:
    models = (await client.get("/v1/models"))["data"]
    if not models:
        raise output.CommandFailed("the server has no model that this key may use")
    return str(models[0]["id"])


async def _answer_once(client: Client, conversation: Conversation, message: str, json: bool) -> None:
    answer = await conversation.ask(client, message, _silent if json else _show)
    if not json:
        print()
        return
    output.print_json(
        {
            "model": conversation.model,
            "content": answer.text,
            "finish_reason": answer.finish_reason,
            "usage": {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens},
            "time_to_first_token": answer.first_token,
            "seconds": answer.seconds,
            "tokens_per_second": answer.tokens_per_second,
        }
    )


async def _converse(client: Client, conversation: Conversation) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 -- gives input() its line editing and history; not on every platform
    output.console.print(Text(conversation.model, style="bold"), Text(f"  {HELP}", style="dim"))
    while (line := _read_line()) is not None:
        command, _, rest = line.partition(" ")
        match command:
            case "":
                continue
            case "/exit" | "/quit":
                return
            case "/reset":
                conversation.reset()
                output.note("The conversation is forgotten.")
            case "/system":
                conversation.system = rest.strip() or None
                output.note("Instructions are set." if conversation.system else "Instructions are removed.")
            case _ if command.startswith("/"):
                output.note(HELP)
            case _:
                await _turn(client, conversation, line)


def _read_line() -> str | None:
    """None when the person leaves."""
    try:
        return input("\001\x1b[1;36m\002› \001\x1b[0m\002").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return None


async def _turn(client: Client, conversation: Conversation, line: str) -> None:
    """One question; a failure or Ctrl-C ends the answer, not the conversation."""
    try:
        async with _interruptible():
            answer = await conversation.ask(client, line, _show)
    except asyncio.CancelledError:
        print()
        output.note("interrupted; this turn is forgotten")
    except ClientError as error:
        print()
        output.complain(error.message)
    else:
        print()
        output.note(summary(answer))
        print()


@contextlib.asynccontextmanager
async def _interruptible() -> AsyncIterator[None]:
    """Ctrl-C cancels the body as CancelledError, instead of ending the program."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 -- we run in one
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        task.uncancel()


def summary(answer: Answer) -> str:
    speed = answer.tokens_per_second
    parts = [
        f"{answer.output_tokens} tokens",
        f"{speed:.0f} tok/s" if speed else "",
        f"first after {answer.first_token:.2f} s" if answer.first_token is not None else "",
        "stopped at the longest answer" if answer.finish_reason == "length" else "",
    ]
    return " · ".join(part for part in parts if part)


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _silent(text: str) -> None:
    """With --json the answer is printed whole."""
