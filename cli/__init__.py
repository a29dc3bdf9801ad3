"""The command line: one file a command, arguments only. May import everything; nothing imports it."""
