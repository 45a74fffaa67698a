// How far a peer may be ahead of the app that reads: the window of each stream, which opens by what the app took.
#ifndef AMBIENT_WINDOW_H
#define AMBIENT_WINDOW_H

#include <stddef.h>

struct leg;

void window_open(struct leg *);          // the app took bytes of the stream, or some were padding
void window_moved(struct leg *, size_t); // bytes of it came or went
void window_judge(struct leg *);         // bytes of it came: is it to be wide?
void window_close(struct leg *);         // it leaves its tunnel

#endif
