"""`python -m vertebra COMMAND`: the same as `vertebra COMMAND`."""

from vertebra.cli import main

if __name__ == "__main__":
    main()
