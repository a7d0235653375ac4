"""A package of somebody else: one of each thing that edge-train can be given by entry points."""
