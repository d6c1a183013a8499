#include "umbriel/ops/activation.hpp"
