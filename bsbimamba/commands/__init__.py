"""The commands: `bsbimamba enhance`, `bsbimamba evaluate` and others (`python -m bsbimamba`)."""
