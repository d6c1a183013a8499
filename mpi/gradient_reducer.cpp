#include "umbriel/mpi/gradient_reducer.hpp"
