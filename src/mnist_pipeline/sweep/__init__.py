"""The sweep: search, confirm, train the winner."""
