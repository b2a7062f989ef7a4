"""`python -m franken.cli`."""

from franken.cli import main

main()
