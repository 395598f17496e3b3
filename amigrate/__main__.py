"""`python -m amigrate`."""

from amigrate.cli.app import main

if __name__ == "__main__":
    main()
