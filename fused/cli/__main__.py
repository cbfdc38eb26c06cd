"""`python -m fused.cli` is fusedctl."""

from fused.cli import main

main()
