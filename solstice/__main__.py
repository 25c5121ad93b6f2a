"""`solstice` and `python -m solstice`."""

from __future__ import annotations

from solstice._siblings import leave_out_current_folder, load


def main() -> None:
    """Run the `solstice` command; never returns."""
    leave_out_current_folder()
    load("engine")
    from engine.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
