"""The command line: one group, one command per file beside this one, one place that prints errors.

Exit codes: 0 all OK; 1 the sweep is complete but some cells are not OK, or `compare` found what
--fail-on names; 2 bad input; 3 a fault of tensorgap; 130 interrupted, and resumable.
"""

import contextlib
import importlib
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from bench import __version__
from bench.errors import TensorgapError
from bench.files.location import redacted
from jobs import terminal

BAD_INPUT, FAULT, INTERRUPTED = 2, 3, 130
_COMMANDS = {
    "sweep": ("jobs.sweep", "Measure a matrix and collect one Parquet file."),
    "plan": ("jobs.plan", "Show what would run where, and what cannot and why."),
    "report": ("jobs.report.command", "Show the table of results again."),
    "compare": ("jobs.compare", "Say what changed between two runs, or more."),
    "explain": ("jobs.explain", "Say what the results show, why, and what to do."),
    "merge": ("jobs.merge", "Make one Parquet file of several results."),
    "doctor": ("jobs.doctor", "Show what this machine or cluster offers."),
}


class _Commands(click.Group):
    """Loads a command only when it is called, so that --help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 all OK; 1 some cells are not OK, or worse than --fail-on; 2 bad input;"
    " 3 a fault of tensorgap; 130 interrupted.",
)
@click.version_option(__version__, prog_name="tensorgap")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """What does this GPU, at this precision, really do to the inference of a decoder?

    Measures time, energy and perplexity of a model on every (GPU type, precision) of a matrix, each
    in a fresh process alone on its GPU, and merges the rows into Parquet.

    \b
    Try it on this machine, then look at the table again:
      tensorgap doctor
      tensorgap plan  jobs/matrices/local.toml
      tensorgap sweep jobs/matrices/local.toml
      tensorgap report  results/local/20261124T120000Z
      tensorgap explain results/local/20261124T120000Z

    The matrices local, study and generations are installed too: `tensorgap sweep local`.
    """


def program() -> NoReturn:
    """`tensorgap` as a process: `main`, and an end at once.

    An interpreter that has loaded Ray and pyarrow takes 0.4 s to take apart what the system frees
    anyhow, while the prompt is waited for.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    with contextlib.suppress(OSError, ValueError):  # who read it has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; the only place that prints an error and sets an exit code for it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # --debug may stand anywhere, as it is an afterthought when a command has failed.
    given = [argument for argument in given if argument != "--debug"]
    # A warning may quote what was read, too.
    warnings.showwarning = terminal.warn
    # SIGTERM ends as Ctrl-C does: orderly, with the same word and code.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Not cli.main: it would make exit code 1 of a closed pipe.
        with cli.make_context("tensorgap", given) as context:
            code = cli.invoke(context)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        usage = io.StringIO()
        error.show(file=usage)
        lines = usage.getvalue().rstrip("\n").split("\n")
        terminal.complain(*(redacted(line, given) for line in lines))
        sys.exit(BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            lines = traceback.format_exc().splitlines()
            terminal.complain(*(redacted(line, given) for line in lines))
        code, words = verdict(error, debug)
        for line in words:
            terminal.say(redacted(line, given))
        sys.exit(code)
    finally:
        signal.signal(signal.SIGTERM, before)


def verdict(error: BaseException, debug: bool) -> tuple[int, Sequence[str]]:
    """The exit code of an error, and what is said of it."""
    match error:
        case TensorgapError():
            return BAD_INPUT, [str(line) for line in error.args]
        case MemoryError():
            return BAD_INPUT, ["there is not enough memory; read less at once, and see --max-input"]
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED, ["interrupted"]
    first = (str(error).strip() or "no message").splitlines()[0]
    hint = "" if debug else " (a fault of tensorgap: --debug shows where)"
    return FAULT, [f"{type(error).__name__}: {first}{hint}"]
