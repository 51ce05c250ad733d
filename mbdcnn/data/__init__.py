"""Data set folders: indexing them, and drawing a synthetic one."""
