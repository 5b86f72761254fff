/* Weights' gradients by emulated tiles: a unit of its own, as test_tiles.c is that of the others. */
#include "emulated_tiles.h"

#include "backend/cpu/tiles_tn.c"
