"""Names of the forms of data that ``load_dataset`` reads."""

FORMATS = ("auto", "parquet", "csv", "recbole", "amazon23", "movielens")
