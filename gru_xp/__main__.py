"""``python -m gru_xp`` is the ``gru-xp`` command."""

from pathlib import Path

import gru_xp

try:
    from gru_xp.cli import main
except ModuleNotFoundError:  # in the folder of a clone, which hides the installed package; cli and data are beside it
    gru_xp.__path__.append(str(Path(__file__).parents[1]))
    from gru_xp.cli import main

main()
