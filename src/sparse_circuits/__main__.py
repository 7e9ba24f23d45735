"""``python -m sparse_circuits``: the command line."""

from sparse_circuits.cli import main

if __name__ == "__main__":
    main()
