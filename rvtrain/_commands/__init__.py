"""The commands that work on files of vectors, a module each. `cli` parses their arguments and calls ``run``."""
