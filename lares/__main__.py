"""``python -m lares`` is the command line."""

from lares.cli import main

if __name__ == "__main__":
    main()
