"""What every driver of a port must do, one class of tests a port: subclass it with fixtures that give a driver."""
