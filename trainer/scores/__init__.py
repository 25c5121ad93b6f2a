"""Scores of translations, one per file."""
