"""`python -m serinus_runtime` is the same as the `serinus-runtime` command."""

from serinus_runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
