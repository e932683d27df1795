"""What a budget buys, and what it costs in money, said before it is spent."""
