"""The older names of the request and response of `@rawhttp`."""
