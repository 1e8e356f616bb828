"""`pnc webhooks`: addresses that are told of changes of jobs and deployments."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion
from app.cli.screen import DEFAULT_URL, AsJson, Url, connected, record, table, when

if TYPE_CHECKING:
    from pnc_client import Webhook

app = typer.Typer(name="webhooks", help="Addresses that are told of changes.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Id of a webhook.", autocompletion=completion.webhooks)]
Events = Annotated[
    list[str] | None, typer.Option("--event", "-e", help="Type such as job.succeeded; repeatable; none: all.")
]
KEEP_IT = "keep the secret: it is not shown again"


@app.command()
def create(
    address: Annotated[str, typer.Argument(help="Where messages are sent: https://... or http://...")],
    event: Events = None,
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Tell an address of changes; shows the secret that signs the messages."""
    with connected(url, as_json) as (client, screen):
        made = client.webhooks.create(address, events=event or [], description=description)
        screen.show(made, lambda: record({**_fields(made), "secret": made.secret}))
        screen.note(KEEP_IT)


@app.command("list")
def list_webhooks(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """All webhooks, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.webhooks.list())
        rows = ([hook.id, hook.url, ", ".join(hook.events) or "all", _state(hook)] for hook in found)
        empty = "nobody is told of changes yet; add an address with `pnc webhooks create`"
        screen.show(found, lambda: table(["webhook", "address", "events", "state"], rows, empty))


@app.command()
def show(webhook: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """One webhook."""
    with connected(url, as_json) as (client, screen):
        found = client.webhooks.get(webhook)
        screen.show(found, lambda: record(_fields(found)))


@app.command()
def edit(
    webhook: Id,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Send messages, or let them wait.")] = None,
    event: Events = None,
    description: Annotated[str | None, typer.Option(help="Free text.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Enable or disable a webhook, or change what it is told."""
    with connected(url, as_json) as (client, screen):
        changed = client.webhooks.change(webhook, enabled=enable, events=event, description=description)
        screen.show(changed, lambda: record(_fields(changed)))


@app.command()
def delete(webhook: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Tell it nothing more, and forget what was sent."""
    with connected(url, as_json) as (client, screen):
        client.webhooks.delete(webhook)
        screen.show({"deleted": webhook}, lambda: f"{webhook} is told nothing more")


@app.command()
def rotate(webhook: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Give it another secret; for a day messages are signed with both."""
    with connected(url, as_json) as (client, screen):
        changed = client.webhooks.rotate(webhook)
        screen.show(changed, lambda: record({"webhook": changed.id, "secret": changed.secret}))
        screen.note(KEEP_IT)


@app.command("test")
def send_test(webhook: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Send it a message that says nothing but that messages arrive."""
    with connected(url, as_json) as (client, screen):
        sent = client.webhooks.test(webhook)
        screen.show(sent, lambda: f"{sent.id} will be sent; see `pnc webhooks deliveries {webhook}`")


@app.command()
def deliveries(
    webhook: Id,
    state: Annotated[str | None, typer.Option(help="Only waiting, delivered or failed ones.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What was and will be sent to it, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.webhooks.deliveries(webhook, state=state))
        rows = ([d.id, d.type, d.state, d.tries, d.status or "—", d.error or "", when(d.created_at)] for d in found)
        columns = ["delivery", "event", "state", "#tries", "#status", "last problem", "happened"]
        screen.show(found, lambda: table(columns, rows, "nothing was sent yet; try `pnc webhooks test`"))


@app.command()
def redeliver(
    webhook: Id,
    delivery: Annotated[str, typer.Argument(help="Id of a delivery.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send a message once more, with its old id and body."""
    with connected(url, as_json) as (client, screen):
        sent = client.webhooks.redeliver(webhook, delivery)
        screen.show(sent, lambda: f"{sent.id} will be sent again")


def _fields(webhook: "Webhook") -> "dict[str, object]":
    return {
        "webhook": webhook.id,
        "address": webhook.url,
        "events": ", ".join(webhook.events) or "all",
        "state": _state(webhook),
        "description": webhook.description,
        "made": when(webhook.created_at),
    }


def _state(webhook: "Webhook") -> str:
    if not webhook.enabled:
        return f"disabled: {webhook.problem}" if webhook.problem else "disabled"
    return f"failing since {when(webhook.failing_since)}" if webhook.failing_since else "enabled"
