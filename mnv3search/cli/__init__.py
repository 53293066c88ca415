"""The command line: one file a command; each parses and composes, none holds logic."""
