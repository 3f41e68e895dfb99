"""``python -m sparring`` is the command ``sparring``."""

from sparring.suites.cli.app import main

if __name__ == "__main__":
    main()
