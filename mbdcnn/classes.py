"""The diagnoses that mask-CN tells apart, in the order of its outputs."""

CLASSES = ("nevus", "melanoma", "seborrheic_keratosis")
SPLITS = ("training", "validation", "test")
