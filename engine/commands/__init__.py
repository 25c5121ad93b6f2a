"""The subcommands of `solstice`, one file each."""
