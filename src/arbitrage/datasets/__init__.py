"""Problems by name, from files and from the hub."""
