"""The command line: its commands, and how errors become exit codes."""

import os
import sys
import traceback

import click

from headgate.jobs.cli import (
    apply,
    building,
    dedup,
    drifting,
    fuse,
    impute,
    keeping,
    looking,
    machine,
    maintaining,
    missing,
    places,
    rebalance,
    reference,
    registering,
    reviewing,
    starting,
)
from headgate.jobs.cli.options import DEBUG, HELP, Commands
from headgate.jobs.disclosure import without_secrets
from headgate.jobs.errors import HeadgateError, Interrupted, UsageError, ending, storage_failure
from headgate.jobs.progress import LOG
from headgate.version import VERSION


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(VERSION, prog_name="headgate")
@click.option("--debug", **DEBUG)
def headgate() -> None:
    """Prepare training data on Spark: gated, versioned, every row accounted for.

    A pipeline (conf/*.yaml) is a list of tables. `run` builds those that are not up to date, lets a suite of
    expectations judge what was staged, publishes each table in one Delta commit, and releases all versions together.

    \b
    Start here:
      headgate init my_project                    a small pipeline of your own that runs as it is
      headgate sample flights --into landing      a real year of data to play with
      headgate run conf/flights.yaml              build, judge, publish, release
      headgate tables                             what is there now
      headgate sql "select count(*) from flights_training"
    """
    log = os.environ.get(LOG, "")
    if log not in ("", "json"):
        raise UsageError(f"{LOG}: unknown form '{log}' of a log; write json, or leave it empty for plain lines")


headgate.add_under("Start", starting.init, starting.sample, building.check, machine.doctor)
headgate.add_under("Build, with a pipeline", building.run, building.backfill)
headgate.add_under("Build, without YAML", dedup.dedup, fuse.fuse, impute.impute, rebalance.rebalance, apply.apply)
headgate.add_under("Query", looking.tables, looking.versions, looking.releases, looking.sql)
headgate.add_under(
    "Explain",
    looking.trace,
    looking.diff,
    looking.lineage,
    missing.missing,
    drifting.drift,
    reviewing.review,
)
headgate.add_under("Keep", keeping.verify, keeping.restore, keeping.release, keeping.vacuum, keeping.erase)
headgate.add_under(
    "Maintain",
    maintaining.storage,
    maintaining.optimize,
    maintaining.backup,
    maintaining.recover,
    registering.register,
)
headgate.add_under("Reference", reference.steps, reference.expectations, reference.schema)
headgate.add_under("The machine", machine.jars, machine.prepare)


def main() -> None:
    """Run the command line, as the console script does."""
    places.end_on_signals()
    code = exit_code()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on; Python would flush again, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def exit_code() -> int:
    """Run the command; tell what went wrong in one line, and return the exit code of its class."""
    try:
        headgate.main(prog_name="headgate", standalone_mode=False)
        return 0
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1
    except click.exceptions.Exit as e:
        return e.exit_code
    except Interrupted as e:
        return failed(e, e.status, e.exit_code)
    except (click.Abort, KeyboardInterrupt) as e:  # before the handlers were set
        return failed(e, Interrupted.status, Interrupted.exit_code)
    except click.ClickException as e:
        if type(e).__name__ == "NoArgsIsHelpError":  # click 8.1 has none
            click.echo(e.format_message())
            return 2
        command = e.ctx.command_path if isinstance(e, click.UsageError) and e.ctx else "headgate"
        return failed(e, f"{' '.join(e.format_message().split())} (see '{command} --help')", 2)
    except HeadgateError as e:
        return failed(e, str(e), e.exit_code)
    except BrokenPipeError:
        return 0
    except Exception as e:
        failure = storage_failure(e, places.lakes[0], None, *places.written)
        if failure is not None:
            return failed(e, str(failure), failure.exit_code)
        line = next(iter(str(e).splitlines()), "")
        return failed(e, f"failed: {type(e).__name__}: {line} (--debug shows the whole error)", 1)


def failed(error: BaseException, line: str, code: int) -> int:
    """Tell an error in one line, after its whole chain of causes if that was asked for; returns its exit code."""
    error = ending(error)
    if isinstance(error, Interrupted):
        line, code = error.status, error.exit_code
    if os.environ.get("HEADGATE_DEBUG", "") not in ("", "0"):
        click.echo(without_secrets("".join(traceback.format_exception(error))).rstrip(), err=True)
    click.echo(without_secrets(f"headgate: {line}"), err=True)
    return code


if __name__ == "__main__":
    main()
