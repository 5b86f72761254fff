/* Weights' gradients by emulated tiles; test_tiles.c has the other products. */
#include "emulated_tiles.h"

#include "backend/cpu/tiles_tn.c"
