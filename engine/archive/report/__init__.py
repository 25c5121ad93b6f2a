"""The before-and-after page of a run: one self-contained HTML file."""
