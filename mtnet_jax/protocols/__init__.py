"""The paper's protocols: from raw folders to its tables, beside published rows."""
