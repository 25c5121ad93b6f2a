"""EXIF, XMP, IPTC and text: read from the input, correct for the output, write into it."""
