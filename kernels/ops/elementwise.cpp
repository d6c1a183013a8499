#include "umbriel/ops/elementwise.hpp"
