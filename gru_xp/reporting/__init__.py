"""What a run leaves behind: tables, JSON and plots."""
