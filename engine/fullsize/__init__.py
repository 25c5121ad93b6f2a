"""Photos larger than memory: `tiled` translates them band by band, with the result of the whole image."""
