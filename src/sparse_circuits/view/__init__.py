"""Pictures of circuits and curves, and Graphviz text. Import its modules: those that draw import matplotlib."""
