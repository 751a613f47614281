"""Whether a store, and what lies beside it, is as it should be; what to do where it is not."""
