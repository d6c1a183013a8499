#include "umbriel/ops/conv2d.hpp"
