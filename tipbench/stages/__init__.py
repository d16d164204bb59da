"""One module a stage, one public `run` each: collect, export, score, apply, compare.

A stage never imports another; they meet in the store.
"""
