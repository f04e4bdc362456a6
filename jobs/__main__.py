"""`python -m jobs` is the same program as `tensorgap`."""

from jobs.cli import main

if __name__ == "__main__":
    main()
