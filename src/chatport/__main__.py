"""`python -m chatport` is `chatport`."""

from chatport.cli import main

main()
