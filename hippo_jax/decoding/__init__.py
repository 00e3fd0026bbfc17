"""How tokens are drawn and decoded."""
