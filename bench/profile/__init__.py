"""Why a row is what it is: kernels, measured peaks, and the work by formula."""
