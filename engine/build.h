// Which program this is.
#ifndef AMBIENT_BUILD_H
#define AMBIENT_BUILD_H

extern const char engine_build[]; // the version, and a hash of all sources: other sources, another text

#endif
