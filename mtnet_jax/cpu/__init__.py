"""Where processors differ: convolution by oneDNN, Winograd, memory, the cache of programs."""
