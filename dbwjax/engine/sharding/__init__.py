"""One simulation cut among devices: where rows lie, what moves between them, and the program of one piece."""
