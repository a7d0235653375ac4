"""What a machine says of its power: mains or battery, joules, heat. Standard library only."""
