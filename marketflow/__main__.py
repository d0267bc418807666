"""`python -m marketflow`: the command `marketflow`."""

from marketflow.cli import main

if __name__ == "__main__":
    main()
