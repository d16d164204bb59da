"""Outputs and scores in tables, as they come from other programs and go to them: one row a candidate, or a judge's score of one."""
