"""Where it runs: processes, devices, memory, and what reaches standard error."""
