"""The app in children of a process that has imported everything, since to start Python takes longer than a small run.

Each line of stdin is a list in JSON, of arguments and of the seconds after which the child is killed, or null. It is
answered by the exit code, as `subprocess` has it, and how long it took. The first line is run by the process itself.
"""

import json
import os
import signal
import sys
import time

from gru_xp import cli
from gru_xp.reporting import run_folder


def run(arguments):
    sys.argv = ["gru-xp", *arguments]
    try:
        cli.main()
    except SystemExit as leaving:
        return leaving.code


def run_child(arguments, seconds):
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = run(arguments)
        finally:
            os._exit(code)
    ended, status = 0, 0
    while not ended:
        if seconds is not None and time.monotonic() - start >= seconds:
            os.kill(child, signal.SIGKILL)
            seconds = None
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0 if ended else 0.0005)
    return os.waitstatus_to_exitcode(status), time.monotonic() - start


def write_no_plots(folder, *arguments):
    """They would take nearly all of the time, and are no part of what goes on."""
    (folder / "plots").mkdir()
    (folder / "plots/cost_plot.png").touch()


run_folder.write_plots = write_no_plots
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the app prints is not looked at
run(json.loads(sys.stdin.readline())[0])
for line in sys.stdin:
    print(json.dumps(run_child(*json.loads(line))), file=answers, flush=True)
