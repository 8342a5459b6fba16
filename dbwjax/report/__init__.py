"""What is shown, from rows: statistics (the only place), tables and figures."""
