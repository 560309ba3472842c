"""`python -m quartapp`."""

from quartapp.cli import main

main()
