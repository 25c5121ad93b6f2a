"""`solstice-train` and `python -m solstice.trainer`."""

from __future__ import annotations

from solstice._siblings import leave_out_current_folder, load


def main() -> None:
    """Run the `solstice-train` command; never returns."""
    leave_out_current_folder()
    load("engine")
    load("trainer")
    from trainer.cli import main as run

    run()


if __name__ == "__main__":
    main()
