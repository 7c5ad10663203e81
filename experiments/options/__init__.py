"""The options of the commands: groups that several commands share, and the parser that reads them."""
