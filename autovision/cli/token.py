"""`autovision token`: create, list and revoke the tokens that servers ask for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.options import Json, Store
from autovision.cli.output import answering, facts, library, table, text

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.records.tokens import Token

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke the tokens that servers ask for.")


@app.command()
def create(
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="predict, feedback, read, submit, promote or admin; may be repeated.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Whom it is for.")],
    expires_days: Annotated[
        float | None,
        typer.Option("--expires-days", metavar="D", help="Valid for so many days; without it for good."),
    ] = None,
    max_searches: Annotated[
        int | None,
        typer.Option("--max-searches", metavar="N", help="That wait or run at once, submitted with it."),
    ] = None,
    max_search_s_per_day: Annotated[
        float | None,
        typer.Option(
            "--max-search-s-per-day",
            metavar="SECONDS",
            help="Budgets of the searches submitted with it within 24 hours, together.",
        ),
    ] = None,
    max_priority: Annotated[
        int,
        typer.Option(
            "--max-priority", metavar="P", help="Of searches submitted with it, -10 to 10; of admins any."
        ),
    ] = 0,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Create a token and print it, this once: the store keeps its digest alone.

    From the first token on, servers of this store answer nobody without one; predict allows asking about images,
    feedback giving labels, admin reading metrics. Of the API service, read allows looking, submit searching, promote
    changing what serves, and admin tokens, the audit log, and others' searches.
    """
    from autovision.errors import InvalidInput
    from autovision.records.base import now

    with answering(as_json) as out:
        if expires_days is not None and not 0 < expires_days <= 36_500:
            raise InvalidInput(f"--expires-days is {expires_days:g}; give a number above 0, up to 36500")
        ends = None if expires_days is None else now() + timedelta(days=expires_days)
        made = library(store).create_token(
            name,
            [_scope(each) for each in scope],
            expires_at=ends,
            max_searches=max_searches,
            max_search_s_per_day=max_search_s_per_day,
            max_priority=max_priority,
        )
        out.answer({"secret": made.secret, **_machine(made.token)}, made.secret)
        out.note("send it as `Authorization: Bearer TOKEN`; it cannot be shown again")


@app.command("list")
def list_(store: Store = None, as_json: Json = False) -> None:
    """List the tokens, those that are no longer valid too."""
    from autovision.records.base import now

    with answering(as_json) as out:
        found = library(store).tokens()
        out.answer(
            [_machine(each) for each in found],
            _list_table(found, now())
            if found
            else "There are no tokens; `autovision token create --scope predict --name NAME` makes one.",
        )


@app.command()
def revoke(
    token: Annotated[
        str, typer.Argument(metavar="TOKEN", help="A token's id, or a name: all tokens of that name.")
    ],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Revoke a token: servers refuse it within five seconds, as soon as they have read the store again."""
    with answering(as_json) as out:
        revoked = library(store).revoke_token(token)
        out.answer(
            [_machine(each) for each in revoked],
            *(
                facts({"token": each.id, "name": each.name, "revoked (UTC)": each.revoked_at})
                for each in revoked
            ),
        )


# ---------------------------------------------------------------------------------------------- helpers


def _scope(name: str) -> Any:
    from autovision.errors import InvalidInput, near
    from autovision.records.tokens import Scope

    known = [scope.value for scope in Scope]
    if name not in known:
        raise InvalidInput(f"no scope {name!r}; choose one of {', '.join(known)}{near(name, known)}")
    return Scope(name)


def _machine(token: Token) -> dict[str, Any]:
    """Without the digest, which is of use to nobody but a server."""
    return token.model_dump(mode="json", exclude={"digest"})


def _list_table(found: list[Token], at: datetime) -> Table:
    rows = [[each.id, each.name, " ".join(each.scopes), each.created_at, _state(each, at)] for each in found]
    return table(["!token", "name", "scopes", "made (UTC)", "state"], rows)


def _state(token: Token, at: datetime) -> Any:
    if token.revoked_at is not None:
        return text("revoked", "dim")
    if token.expires_at is None:
        return "valid"
    until = f"{token.expires_at:%Y-%m-%d %H:%M}"
    return f"valid until {until}" if token.is_valid(at) else text(f"expired {until}", "dim")
