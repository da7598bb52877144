"""`python -m cloche` is the `cloche` command."""

from cloche.cli import main

if __name__ == "__main__":
    main()
