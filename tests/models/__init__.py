"""Models of true shape and random weights: what they say is noise; what they weigh, take and need in time is real."""
