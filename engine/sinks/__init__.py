"""Where results go: `base` says what a sink promises, each other file is one kind of sink."""
