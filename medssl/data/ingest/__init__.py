"""From files to a store: discovery, reading, de-identification, preparation and the file ledger."""
