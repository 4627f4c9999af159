"""The caller: a module without a contract."""
