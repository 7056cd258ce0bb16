"""Azure on this machine, for people who try glint and for its tests: Blob Storage and Cosmos DB, without an account."""
