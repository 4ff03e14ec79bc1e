"""`python -m headgate`: the command line."""

from headgate.jobs.cli.main import main

main()
