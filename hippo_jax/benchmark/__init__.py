"""Speed, measured side by side in one run; and what a draft's proposals are worth."""
