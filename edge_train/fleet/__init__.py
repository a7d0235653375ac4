"""Many devices train one model: what they send each other, who agrees, and Flower's apps for it."""
