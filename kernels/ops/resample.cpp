#include "umbriel/ops/resample.hpp"
