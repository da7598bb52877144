"""`python -m cloche.server HOME`: what `cloche up` becomes."""

from cloche.server.parent import main

if __name__ == "__main__":
    main()
