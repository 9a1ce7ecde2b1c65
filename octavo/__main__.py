"""`python -m octavo` is the command `octavo`."""

from .cli import main

main()
