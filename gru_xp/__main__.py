"""``python -m gru_xp`` is the ``gru-xp`` command."""

from gru_xp.cli import main

main()
