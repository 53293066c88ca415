"""``python -m mnv3search``."""

from mnv3search.cli import main

if __name__ == "__main__":
    main()
