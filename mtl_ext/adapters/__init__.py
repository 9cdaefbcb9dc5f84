"""The operators under other libraries' names. A module that needs its library says so; each is imported by name."""
