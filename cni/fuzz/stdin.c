// What a runtime may send on stdin. What is found lies inside the document, and is JSON itself.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

static const char *const names[] = {"cniVersion", "prevResult", "runDir", "exempt", ""};

// json_member wants an object: the value as a member of one.
static void expect_json(struct text value) {
  struct text inner;
  char *whole = malloc(value.len + 6);
  if (!whole) abort();
  memcpy(whole, "{\"a\":", 5);
  memcpy(whole + 5, value.at, value.len);
  whole[value.len + 5] = '}';
  if (!json_member((struct text){whole, value.len + 6}, "a", &inner)) abort();
  if (inner.at != whole + 5 || inner.len != value.len) abort();
  free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *copy = malloc(size ? size : 1); // of exactly this size, so that ASan sees a read beyond it
  if (!copy) abort();
  memcpy(copy, data, size);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    struct text value;
    if (!json_member((struct text){copy, size}, names[i], &value) || !value.at) continue;
    if (!value.len || value.at < copy || value.at + value.len > copy + size) abort();
    expect_json(value);
    struct text plain = json_plain(value);
    if (plain.len && (plain.at != value.at + 1 || plain.len != value.len - 2)) abort();
  }
  free(copy);
  return 0;
}
