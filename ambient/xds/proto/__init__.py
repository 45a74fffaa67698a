"""Messages, compiled from the .proto files beside this file by `make native`."""
