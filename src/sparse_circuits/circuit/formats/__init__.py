"""Files of other tools: read, written, and what of a circuit each of them can hold."""
