"""The command line: `main` finds a command, each other file is one command or a group of options."""
