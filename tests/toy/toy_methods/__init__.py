"""Methods and metrics of the toy track."""
