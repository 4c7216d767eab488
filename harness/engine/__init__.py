"""The engine: suite files, the plan of trials, worker processes and the ledger of records."""
