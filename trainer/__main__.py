"""`python -m trainer` is `solstice-train`."""

from trainer.cli import main

main()
