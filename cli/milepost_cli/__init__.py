"""The command line of milepost. It uses the public face of the library and nothing behind it."""
