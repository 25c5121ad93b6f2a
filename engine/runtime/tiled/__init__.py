"""Photos larger than memory: `translate` works band by band, with the result of the whole image."""
