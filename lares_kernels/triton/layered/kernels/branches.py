"""Number the layers' branches and LayerNorms for the row kernels of the layered plan."""

# Which of a layer's residual branches, or none: attention's, or the filter's where there is no
# attention; the feed-forward's; that of bands beside attention.
NO_BRANCH, MIXING, FEED_FORWARD, BANDS = -1, 0, 1, 2

# Where the LayerNorm stands whose gradient is wanted: nowhere; what followed read the normalised sum
# alone; what followed read the sum, and a branch its LayerNorm.
NO_NORM, OF_SUM, OF_BRANCH = 0, 1, 2
