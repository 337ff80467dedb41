"""Number the layers' branches and LayerNorms for the row kernels of the layered plan."""

# Which of a layer's residual branches, or none: attention's, or the filter's where there is no
# attention; the feed-forward's; that of bands beside attention.
NO_BRANCH, MIXING, FEED_FORWARD, BANDS = -1, 0, 1, 2

# The LayerNorm to differentiate: none; of the sum, if only its normalised value was read; of a branch's
# input, if the sum itself was read too.
NO_NORM, OF_SUM, OF_BRANCH = 0, 1, 2
