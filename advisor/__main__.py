"""`python -m advisor`: the `advise` command."""

from advisor.cli import main

if __name__ == "__main__":
    main()
