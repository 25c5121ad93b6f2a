"""Translate archives of photos: `convert` runs the pipeline over files, a manifest remembers what is done."""
