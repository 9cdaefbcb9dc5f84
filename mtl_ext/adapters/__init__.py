"""The operators under other libraries' names. Each module needs its library and is imported by name."""
