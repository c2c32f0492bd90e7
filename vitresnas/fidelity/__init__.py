"""Do inherited weights rank networks as training each of them alone would?

A few architectures spread over the space are trained alone, all for the same short schedule, and
both orders are compared. Several seeds of some of them tell how much of a disagreement is the noise
of training alone; the draws of the super-network's training tell how often every width was seen.
"""
