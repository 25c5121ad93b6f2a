"""Where images come from: `base` says what a source promises, each other file is one kind of source."""
