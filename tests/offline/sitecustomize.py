"""Cut a Python off the network; one that finds this folder on its path runs this at its start."""

import sys

REFUSED = ("bind", "connect", "getaddrinfo", "gethostbyaddr", "gethostbyname", "sendmsg", "sendto")

tried = []
"""What was asked for nevertheless, also where the error was caught."""


def _refuse(event, arguments):
    room, _, name = event.partition(".")
    if room == "socket" and name in REFUSED:
        tried.append(f"{event} {arguments[1:] or arguments}")
        raise RuntimeError(f"{tried[-1]}: there is no network in the tests")


sys.addaudithook(_refuse)
