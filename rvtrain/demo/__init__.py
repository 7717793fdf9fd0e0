"""The demo: from a sentence about the Python standard library to the name it describes."""
