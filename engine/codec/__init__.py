"""Bytes to pixels and back: header, decode, resize, colour, detail, encode, metadata."""
