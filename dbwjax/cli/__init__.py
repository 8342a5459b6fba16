"""What is typed: argv becomes one call and an exit code."""
