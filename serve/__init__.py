"""Export to a Triton model repository, the embedded server and the client."""
