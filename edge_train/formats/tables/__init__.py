"""Tables and texts as people bring them: one reader of csv, tsv, jsonl, json, txt and parquet."""
