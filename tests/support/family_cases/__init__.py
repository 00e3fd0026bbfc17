"""One description a family; see ``support.families``."""
