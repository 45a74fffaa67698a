"""`python -m ambient`: the command line, for where the package is not installed."""

from ambient.cli import main

main(prog_name="ambient")
