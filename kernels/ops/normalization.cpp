#include "umbriel/ops/normalization.hpp"
