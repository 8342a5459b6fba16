"""What is kept on disk; it knows rows and arrays, never configurations."""
