"""The command line: one thin file per command."""


def main() -> None:
    """Run ``sparse-circuits``, and exit: 0 if all went well, 2 with one line on bad input, 130 after Ctrl-C."""
    from sparse_circuits.cli.app import app

    app(prog_name="sparse-circuits")


__all__ = ["main"]
