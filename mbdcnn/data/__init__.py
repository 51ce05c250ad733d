"""Data set folders: indexing them, deriving others from them, and drawing synthetic ones."""
