"""`pnc jobs`: cloning jobs."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion
from app.cli.parameters import Classes, Epochs, Keep, Parameters, Preset, Seed, Settings, parameters
from app.cli.screen import DEFAULT_URL, AsJson, Exit, Screen, Url, connected, local_time, plain, record, table
from app.cli.verdicts import forecast

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from pnc_client import Client, Event, Job, Verdict

app = typer.Typer(name="jobs", help="Cloning jobs.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Id of a job.", autocompletion=completion.jobs)]
Target = Annotated[
    str,
    typer.Argument(help="Version that gains classes: name, name@3 or name@alias.", autocompletion=completion.models),
]
Source = Annotated[
    str, typer.Argument(help="Version that the classes are cloned from.", autocompletion=completion.models)
]
Data = Annotated[
    str,
    typer.Argument(help="Id of a dataset with images of old and cloned classes.", autocompletion=completion.datasets),
]


@app.command()
def create(
    target: Target,
    source: Source,
    dataset: Data,
    classes: Classes,
    preset: Preset = None,
    keep: Keep = None,
    epochs: Epochs = None,
    seed: Seed = None,
    settings: Settings = None,
    file: Parameters = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Run although a network guesses, or memory may be short.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Submit a job that clones classes of a source for a target."""
    with connected(url, as_json) as (client, screen):
        config = parameters(classes, file, settings, preset=preset, keep=keep, epochs=epochs, seed=seed)
        job = client.jobs.create(target, source, dataset, config, anyway=anyway)
        screen.note(f"submitted {job.id}")
        if watch:
            from app.cli.watching import watch_job

            job = watch_job(job, screen)
        screen.show(job, lambda: _job(job))
        if watch:
            _exit_unless_succeeded(job, screen)


@app.command()
def validate(
    target: Target,
    source: Source,
    dataset: Data,
    classes: Classes,
    preset: Preset = None,
    keep: Keep = None,
    epochs: Epochs = None,
    seed: Seed = None,
    settings: Settings = None,
    file: Parameters = None,
    advice: Annotated[bool, typer.Option("--advice", help="Also forecast accuracy and time; takes seconds.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Check a job without submitting it: show its problems and its estimated cost."""
    with connected(url, as_json) as (client, screen):
        config = parameters(classes, file, settings, preset=preset, keep=keep, epochs=epochs, seed=seed)
        verdict = client.jobs.validate(target, source, dataset, config, advice=advice)
        screen.show(verdict, lambda: _verdict(verdict))
        if not verdict.valid:
            raise typer.Exit(int(Exit.REFUSED))


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    most: Annotated[int, typer.Option(help="Maximum number of jobs; 0: all.", min=0)] = 50,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List cloning jobs, newest first."""
    from itertools import islice

    with connected(url, as_json) as (client, screen):
        found = list(islice(client.jobs.list(state=state), most or None))
        rows = (
            [
                j.id,
                j.state,
                f"{j.progress:.0%}",
                j.source,
                j.target,
                ", ".join(j.config.classes),
                local_time(j.created_at),
            ]
            for j in found
        )
        columns = ["job", "state", "#done", "from", "into", "classes", "submitted"]
        screen.show(found, lambda: table(columns, rows, "no such jobs; submit a job with `pnc jobs create`"))


@app.command()
def show(job: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a cloning job."""
    with connected(url, as_json) as (client, screen):
        found = client.jobs.get(job)
        screen.show(found, lambda: _job(found))


@app.command()
def watch(job: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Follow a job until it ends, with its progress and trials; exits with 3 if the job does not succeed."""
    with connected(url, as_json) as (client, screen):
        from app.cli.watching import watch_job

        ended = watch_job(client.jobs.get(job), screen)
        screen.show(ended, lambda: _job(ended))
        _exit_unless_succeeded(ended, screen)


@app.command()
def cancel(job: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Cancel a job; a running job ends as soon as its worker reads the request."""
    _change(lambda client: client.jobs.cancel(job), url, as_json, _state)


@app.command()
def pause(job: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Pause a job; a running job stops at its next checkpoint."""
    _change(lambda client: client.jobs.pause(job), url, as_json, _state)


@app.command()
def resume(job: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Resume a paused job from its checkpoint."""
    _change(lambda client: client.jobs.resume(job), url, as_json, _state)


@app.command()
def retry(job: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Submit a failed or cancelled job again, as a new job."""
    _change(lambda client: client.jobs.retry(job), url, as_json, _job)


@app.command("attempts")
def list_attempts(job: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List a job's attempts, with the worker and the outcome of each."""
    with connected(url, as_json) as (client, screen):
        found = list(client.jobs.attempts(job))
        rows = (
            [a.number, a.worker, local_time(a.started_at), local_time(a.ended_at), a.outcome, a.reason] for a in found
        )
        columns = ["#attempt", "worker", "started", "ended", "outcome", "reason"]
        screen.show(found, lambda: table(columns, rows, "no worker has started the job yet"))


@app.command()
def logs(
    job: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the job until it ends.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Print a job's events, oldest first."""
    with connected(url, as_json) as (client, screen):
        events = client.jobs.events(job) if follow else client.jobs.history(job)
        if as_json:
            screen.show(list(events), lambda: "")
            return
        for event in events:
            screen.out.print(_line(event), markup=False, soft_wrap=True)


@app.command()
def trials(job: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show the positions that a job has tried, as a table and a plot."""
    with connected(url, as_json) as (client, screen):
        from app.cli.watching import trials_view

        found = list(client.jobs.trials(job))
        screen.show(found, lambda: trials_view([trial.model_dump() for trial in found]))


def _change(
    change: "Callable[[Client], Job]", url: str, as_json: bool, shown: "Callable[[Job], RenderableType]"
) -> None:
    with connected(url, as_json) as (client, screen):
        changed = change(client)
        screen.show(changed, lambda: shown(changed))


def _state(job: "Job") -> str:
    return f"{job.id}: {job.state}"


def _exit_unless_succeeded(job: "Job", screen: Screen) -> None:
    if job.state != "succeeded":
        screen.note(f"the job ended in the state {job.state}: {(job.problem or {}).get('detail', 'no reason given')}")
        raise typer.Exit(int(Exit.NOT_SUCCEEDED))


def _job(job: "Job") -> "RenderableType":
    problem = job.problem or {}
    return record(
        {
            "job": job.id,
            "state": f"{job.state} ({job.stage})" if job.stage and not job.ended else job.state,
            "done": f"{job.progress:.0%}",
            "from": job.source,
            "into": job.target,
            "classes": ", ".join(job.config.classes),
            "dataset": job.dataset,
            "module": job.module,
            "problem": problem.get("detail"),
            "submitted": local_time(job.created_at),
            "started": local_time(job.started_at),
            "ended": local_time(job.finished_at),
        }
    )


def _verdict(verdict: "Verdict") -> "RenderableType":
    estimate = verdict.estimate
    fields: dict[str, object] = {"valid": "yes" if verdict.valid else "no"}
    fields |= {fault.pointer: fault.detail for fault in verdict.problems}
    if estimate is not None:
        fields |= {
            "images of the target's classes": f"{estimate.old_images:,}",
            "images of the cloned classes": f"{estimate.new_images:,}",
            "multiply-accumulates": f"{estimate.macs:.3g}" if estimate.macs is not None else None,
            "numbers of the module": f"{estimate.module_parameters:,}" if estimate.module_parameters else None,
        }
    if verdict.warnings:
        fields["warnings"] = "\n".join(warning.detail for warning in verdict.warnings)
    if verdict.advice is not None:
        fields |= forecast(verdict.advice)
    if verdict.no_advice is not None:
        fields["forecast"] = verdict.no_advice
    return record(fields)


def _line(event: "Event") -> str:
    data = f" {json.dumps(event.data)}" if event.data and event.type != "trial" else ""
    return plain(
        f"{local_time(event.created_at)} {event.progress:>4.0%} {event.stage or event.state:<12} {event.message}{data}"
    )
