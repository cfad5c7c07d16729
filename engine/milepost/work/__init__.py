"""How work is done and judged: errors, retries, measurements. Knows no store."""
