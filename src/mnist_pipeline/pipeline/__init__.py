"""One run: requested, identified, carried out, resumed."""
