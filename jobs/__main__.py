"""`python -m jobs` is the same program as `tensorgap`."""

from jobs.cli import program

if __name__ == "__main__":
    program()
