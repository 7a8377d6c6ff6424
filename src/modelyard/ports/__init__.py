"""What can be replaced, as Protocols of a few methods. Drivers implement them; features know nothing else of drivers."""
