"""How numbers are held: whole, as factors, in few bits; NumPy only."""
