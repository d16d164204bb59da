"""Collecting: a plan, the gates of the RAM policy, and the work itself."""
