"""`python -m mbdcnn`, which is what torchrun starts."""

from mbdcnn.cli import main

main()
