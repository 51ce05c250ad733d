"""DALI pipelines, the engine and the three training stages."""
