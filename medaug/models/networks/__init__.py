"""Build networks sized by arguments; they know no loss and no data set."""
