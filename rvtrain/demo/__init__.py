"""The demo: find a name in the Python standard library from a sentence that describes it."""
