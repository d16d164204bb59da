"""Which small language model, with which prompt? Evidence for devices and pods with little memory."""

__version__ = "0.3.0"
