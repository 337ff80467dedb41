import sys

from benchmarks.gpu.measure import main

sys.exit(main())
