"""The leaderboard: its published model and the ways to show it."""
