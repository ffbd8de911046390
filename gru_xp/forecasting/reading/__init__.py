"""Series from files that people have: every value is what the file says, or an error names its place and a remedy."""
