"""Parts that the commands share: groups that know misspelt names, and the options, each declared once."""

import functools
import math
import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click

from headgate.jobs.cli.places import Place
from headgate.jobs.errors import UsageError
from headgate.words import did_you_mean

EXIT_CODES = """\b
Exit codes: 0 done; 1 the program failed, or what was checked or compared is not
as it should be; 2 wrong usage or configuration; 3 the gate blocked; 4 a file,
table, version, release or row is not there or unreadable; 5 lost a race (try
again); 130, 143 interrupted (Ctrl-C, SIGTERM)."""
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def set_debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        os.environ["HEADGATE_DEBUG"] = "1"


DEBUG: dict[str, Any] = {
    "is_flag": True,
    "expose_value": False,
    "callback": set_debug,
    "help": "Show the whole chain of causes of an error (or HEADGATE_DEBUG=1).",
}
debug_option = click.Option(["--debug"], **DEBUG)


class Command(click.Command):
    """A command that takes --debug, as the whole does before it."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx)[:-1], debug_option, *super().get_params(ctx)[-1:]]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse empty words, as shells make of variables that are not set, before they become the working folder."""
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.params:
            if "" in words(given.get(str(param.name))):
                named = param.opts[0] if isinstance(param, click.Option) else param.metavar or str(param.name).upper()
                raise UsageError(f"{named}: the value is empty")
        return super().parse_args(ctx, args)


def words(value: Any) -> list[Any]:
    """Return what is given for a parameter as a flat list: it may come several times, and be of several words."""
    return [w for v in value for w in words(v)] if isinstance(value, list | tuple) else [value]


class Commands(click.Group):
    """A group whose misspelt commands and options come with a hint, in one line and with exit code 2.

    Its help lists commands under headings, each with the beginning of its description."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.headings: dict[str, list[str]] = {}

    def add_under(self, heading: str, *commands: click.Command) -> None:
        """Add commands that help lists under a heading, in this order."""
        self.headings[heading] = [str(command.name) for command in commands]
        for command in commands:
            self.add_command(command)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        found = super().get_command(ctx, name)
        if found is None:
            known = self.list_commands(ctx)
            hint = did_you_mean(name, known)
            raise UsageError(f"there is no command '{ctx.command_path} {name}'{hint} (commands: {', '.join(known)})")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = self.headings or {"Commands": self.list_commands(ctx)}
        width = max(map(len, self.commands))
        for heading, names in headings.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), beginning(self.commands[name].help)) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + EXIT_CODES.replace("\b\n", "") + "\n")


def beginning(text: str | None) -> str:
    """Return what a description says first: up to its first stop, colon or semicolon, without what is in brackets."""
    return re.split(r"[.:;](?:\s|$)", re.sub(r" \([^()]*\)", "", text or ""), maxsplit=1)[0].replace("\n", " ")


env_option = click.option("--env", metavar="NAME", help="Environment: conf/env/NAME.yaml (default: local).")
lake_option = click.option("--lake", metavar="DIR", help="Folder of the lake (default: lake).")
landing_option = click.option("--landing", metavar="DIR", help="Folder where files land (default: landing).")


def in_lake(command: Callable[..., None], landing: bool = True) -> Callable[..., None]:
    """Add --env, --lake and --landing; the command gets what they say as `place`."""

    @functools.wraps(command)
    def placed(*, env: str | None, lake: str | None, landing: str | None = None, **others: Any) -> None:
        command(place=Place(env, lake, landing), **others)

    return env_option(lake_option(landing_option(placed) if landing else placed))


class FiniteRange(click.FloatRange):
    """A number within bounds; `nan` and `inf`, which Python reads as numbers, are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


def duration(ctx: click.Context, param: click.Parameter, value: str) -> timedelta:
    """Return the time that an option says, as 90s, 30m or 2h."""
    found = re.fullmatch(r"(\d{1,6})(s|m|h)", value)
    if not found:
        raise click.BadParameter(f"'{value}' is not a time like 90s, 30m or 2h")
    return timedelta(seconds=int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]])


as_json = click.option("--json", "json_", is_flag=True, help="Print JSON for scripts (default: a table).")


def listed(text: str | None, option: str) -> list[str]:
    """Return the names that an option lists, separated by commas; none of one that is not given."""
    found = [word.strip() for word in (text or "").split(",") if word.strip()]
    if text and not found:
        raise UsageError(f"{option}: name at least one column")
    return found
