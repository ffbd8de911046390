"""The bundled series, as CSV files; README.md beside them gives source and licence."""
