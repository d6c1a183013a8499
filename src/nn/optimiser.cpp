#include "umbriel/nn/parameters.hpp"
