"""`python -m calibrate`: the `calibrate` command."""

from calibrate.cli import main

if __name__ == "__main__":
    main()
