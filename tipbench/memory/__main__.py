"""`python -m tipbench.memory`: the sidecar."""

from tipbench.memory.sidecar import main

main()
