"""The command line: a short file for each verb, making one call into a pipeline."""
