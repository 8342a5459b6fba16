"""Who is connected, and how slow they are."""
