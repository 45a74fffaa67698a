// As much JSON as a chained plugin needs: is this a document, and where in it is one member of the outermost object?
// Nothing is decoded or copied: a value is passed on byte for byte.
#ifndef AMBIENT_CNI_JSON_H
#define AMBIENT_CNI_JSON_H

#include <stdbool.h>
#include <stddef.h>

// Bytes inside somebody else's buffer; not terminated. `at` NULL: there are none.
struct text {
  const char *at;
  size_t len;
};

// Whether the text is one JSON object (RFC 8259), and nothing after it. *value: the member of this name, the last one
// as in Go's decoder, which runtimes use; its `at` is NULL when there is none. A name that is written with escapes is
// not found: nobody writes ours so.
bool json_member(struct text document, const char *name, struct text *value);

// What a string value has between its quotes; empty for any other value and for a string with escapes.
struct text json_plain(struct text value);

#endif
