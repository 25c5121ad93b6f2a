"""`python -m engine` is `solstice`."""

from engine.cli.main import main

if __name__ == "__main__":
    main()
