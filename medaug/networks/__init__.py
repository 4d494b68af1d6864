"""Networks sized by arguments; they know no loss, data set or resolution."""
