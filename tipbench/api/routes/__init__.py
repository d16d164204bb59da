"""The routes, one router a theme."""
