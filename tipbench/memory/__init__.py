"""Memory: what a model will need (`need`), and what it really takes while it writes (`meter`)."""
