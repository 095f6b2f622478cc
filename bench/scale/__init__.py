"""Growth: what offline generation does at sizes that no real data set here has, on made-up logs of a real shape."""
