"""Series from files and tables: CSV, Parquet and pandas objects."""
