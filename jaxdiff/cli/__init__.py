"""The command line: one file a program, which parses, calls and prints."""
