"""`python -m autovision`: the command line, where its script is not on the path."""

from __future__ import annotations

from autovision.cli.main import main

main()
