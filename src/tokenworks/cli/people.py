"""`tokenworks users`, `invites`, `members`, `service-accounts`: who belongs to an organization and its projects."""

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tokenworks.cli import connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.nouns import Noun, Project
from tokenworks.cli.output import USAGE, CommandFailed


class Role(StrEnum):
    """Roles in an organization."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    BILLING = "billing"


class ProjectRole(StrEnum):
    """Roles in a project."""

    OWNER = "owner"
    MEMBER = "member"


USERS = Noun(
    "users",
    "user",
    "/v1/organization/users",
    (
        ("ID", lambda each: each["id"]),
        ("EMAIL", lambda each: each["email"]),
        ("NAME", lambda each: each["name"]),
        ("ROLE", lambda each: each["role"]),
        ("SINCE", lambda each: output.when(each["added_at"])),
    ),
    wrap=("NAME", "EMAIL"),
)
INVITES = Noun(
    "invites",
    "invite",
    "/v1/organization/invites",
    (
        ("ID", lambda each: each["id"]),
        ("EMAIL", lambda each: each["email"]),
        ("ROLE", lambda each: each["role"]),
        ("STATUS", lambda each: each["status"]),
        ("UNTIL", lambda each: output.when(each["expires_at"])),
    ),
    wrap=("EMAIL",),
)
MEMBERS = Noun("members", "member", "/v1/organization/projects/{project}/users", USERS.columns, wrap=("NAME", "EMAIL"))
ACCOUNTS = Noun(
    "service-accounts",
    "service account",
    "/v1/organization/projects/{project}/service_accounts",
    (
        ("ID", lambda each: each["id"]),
        ("NAME", lambda each: each["name"]),
        ("ROLE", lambda each: each["role"]),
        ("CREATED", lambda each: output.when(each["created_at"])),
    ),
    wrap=("NAME",),
)

users = USERS.group("List, change and remove the users of an organization; they come by invites.")
invites = INVITES.group("Invite people into an organization.")
members = MEMBERS.group("Who works in a project, and as what.")
accounts = ACCOUNTS.group("Service accounts: keys of programs, not of people.")
for _group, _noun, _help in (
    (users, USERS, "Remove a user from the organization; its admin keys end at once."),
    (invites, INVITES, "Take an invite back."),
    (members, MEMBERS, "Take a user out of a project."),
    (accounts, ACCOUNTS, "Remove a service account; its keys end within a second."),
):
    nouns.add_list(_group, _noun)
    nouns.add_remove(_group, _noun, _help)


def register(app: typer.Typer) -> None:
    for group in (users, invites, members, accounts):
        app.add_typer(group)


@users.command("set-role", epilog="Example: tokenworks users set-role user_1 viewer")
def set_role(
    id: Annotated[str, typer.Argument(help="As `users list` shows it.")],
    role: Annotated[Role, typer.Argument(help="The new role.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Give a user another role."""
    path, wish = f"{USERS.path}/{quote(id, safe='')}", {"role": role.value}
    changed = connection.call(connection.administrator(url, key, data_dir), "post", path, wish)
    nouns.done(changed, f"The user {id} is {role.value}.", json)


@invites.command("create", epilog="Example: tokenworks invites create ann@example.com --role viewer")
def create_invite(
    email: Annotated[str, typer.Argument(help="Whom to invite.")],
    role: Annotated[Role, typer.Option(help="The role in the organization.")] = Role.MEMBER,
    project: Annotated[
        list[str] | None, typer.Option(help="A project to work in, as ID or ID:owner; may be repeated.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make an invite. Its token is shown once; whoever accepts it gets an admin key of that role."""
    wish: dict[str, Any] = {
        "email": email,
        "role": role.value,
        "projects": [_in_project(each) for each in project or ()],
    }
    made = connection.call(connection.administrator(url, key, data_dir), "post", INVITES.path, wish)
    nouns.show_secret(made, made["token"], f"The token of invite {made['id']} for {email}.", json)


@invites.command("accept", epilog="Example: tokenworks invites accept TOKEN --name 'Ann Lee'")
def accept_invite(
    token: Annotated[str, typer.Argument(help="What `invites create` showed.")],
    name: Annotated[str, typer.Option(help="Your name.")],
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Accept an invite and get an admin key of your own."""
    wish = {"token": token, "name": name}
    made = connection.call(connection.anonymous(url), "post", "/admin/v1/invites/accept", wish)
    nouns.show_secret(made, made["admin_key"], f"Your admin key, of the role {made['role']}.", json)


@members.command("add", epilog="Example: tokenworks members add ann@example.com --role owner")
def add_member(
    user: Annotated[str, typer.Argument(help="The user's id or e-mail address.")],
    role: Annotated[ProjectRole, typer.Option(help="The role in the project.")] = ProjectRole.MEMBER,
    project: Project = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Let a user of the organization work in a project."""
    client = nouns.admin(url, key, data_dir)
    wish = {"email" if "@" in user else "user_id": user, "role": role.value}
    made = connection.call(client(), "post", MEMBERS.collection(client, project), wish)
    nouns.done(made, f"{made['email']} is {role.value} of the project.", json)


@accounts.command("create", epilog="Example: tokenworks service-accounts create ci --project proj_1")
def create_account(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    project: Project = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make a service account with its API key."""
    client = nouns.admin(url, key, data_dir)
    made = connection.call(client(), "post", ACCOUNTS.collection(client, project), {"name": name})
    nouns.show_secret(made, made["api_key"]["value"], f"The API key of service account {made['id']}.", json)


def _in_project(text: str) -> dict[str, str]:
    project, _, role = text.partition(":")
    if role not in ("", *ProjectRole):
        raise CommandFailed(f"--project {text}: {role!r} is no role in a project; write ID:owner or ID:member", USAGE)
    return {"id": project, "role": role or ProjectRole.MEMBER.value}
