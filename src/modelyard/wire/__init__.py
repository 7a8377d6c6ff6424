"""Foreign dialects: they translate to and from the vocabulary and decide nothing."""
