"""`pnc webhooks`: addresses that receive events of jobs and deployments."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion
from app.cli.screen import DEFAULT_URL, AsJson, Url, connected, local_time, record, table

if TYPE_CHECKING:
    from pnc_client import Webhook

app = typer.Typer(name="webhooks", help="Addresses that receive events of jobs and deployments.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Id of a webhook.", autocompletion=completion.webhooks)]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", "-e", help="Event type such as job.succeeded; repeatable; none: all types."),
]
SHOWN_ONCE = "store the secret: it is not shown again"


@app.command()
def create(
    address: Annotated[str, typer.Argument(help="Address that receives the messages: https://... or http://...")],
    event: Events = None,
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Create a webhook and show the secret that signs its messages."""
    with connected(url, as_json) as (client, screen):
        made = client.webhooks.create(address, events=event or [], description=description)
        screen.show(made, lambda: record({**_fields(made), "secret": made.secret}))
        screen.note(SHOWN_ONCE)


@app.command("list")
def list_webhooks(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List webhooks, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.webhooks.list())
        rows = ([hook.id, hook.url, ", ".join(hook.events) or "all", _state(hook)] for hook in found)
        empty = "no webhooks yet; add an address with `pnc webhooks create`"
        screen.show(found, lambda: table(["webhook", "address", "events", "state"], rows, empty))


@app.command()
def show(webhook: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a webhook."""
    with connected(url, as_json) as (client, screen):
        found = client.webhooks.get(webhook)
        screen.show(found, lambda: record(_fields(found)))


@app.command()
def edit(
    webhook: Id,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Send messages, or hold them back.")] = None,
    event: Events = None,
    description: Annotated[str | None, typer.Option(help="Free text.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Enable or disable a webhook, or change its event types or its description."""
    with connected(url, as_json) as (client, screen):
        changed = client.webhooks.change(webhook, enabled=enable, events=event, description=description)
        screen.show(changed, lambda: record(_fields(changed)))


@app.command()
def delete(webhook: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete a webhook with its deliveries."""
    with connected(url, as_json) as (client, screen):
        client.webhooks.delete(webhook)
        screen.show({"deleted": webhook}, lambda: f"deleted {webhook}")


@app.command()
def rotate(webhook: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Create a new secret; for one day messages are signed with both secrets."""
    with connected(url, as_json) as (client, screen):
        changed = client.webhooks.rotate(webhook)
        screen.show(changed, lambda: record({"webhook": changed.id, "secret": changed.secret}))
        screen.note(SHOWN_ONCE)


@app.command("test")
def send_test(webhook: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Send a test message."""
    with connected(url, as_json) as (client, screen):
        sent = client.webhooks.test(webhook)
        screen.show(sent, lambda: f"{sent.id} will be sent; see `pnc webhooks deliveries {webhook}`")


@app.command()
def deliveries(
    webhook: Id,
    state: Annotated[
        str | None, typer.Option(help="Only deliveries in this state: waiting, delivered or failed.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List the webhook's sent and waiting messages, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.webhooks.deliveries(webhook, state=state))
        rows = (
            [d.id, d.type, d.state, d.tries, d.status or "—", d.error or "", local_time(d.created_at)] for d in found
        )
        columns = ["delivery", "event", "state", "#tries", "#status", "last error", "time of event"]
        screen.show(found, lambda: table(columns, rows, "no messages yet; try `pnc webhooks test`"))


@app.command()
def redeliver(
    webhook: Id,
    delivery: Annotated[str, typer.Argument(help="Id of a delivery.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send a message again, with the same id and body."""
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
        "created": local_time(webhook.created_at),
    }


def _state(webhook: "Webhook") -> str:
    if not webhook.enabled:
        return f"disabled: {webhook.problem}" if webhook.problem else "disabled"
    return f"failing since {local_time(webhook.failing_since)}" if webhook.failing_since else "enabled"
