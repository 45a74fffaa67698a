#include "build.h"

#ifndef AMBIENT_BUILD
#define AMBIENT_BUILD "unversioned"
#endif

const char engine_build[] = AMBIENT_BUILD;
