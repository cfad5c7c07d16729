"""`python -m milepost_cli`: the same as the `milepost` script."""

from milepost_cli.main import main

if __name__ == "__main__":
    main()
