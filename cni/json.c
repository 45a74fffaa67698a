#include "json.h"

#include <string.h>

enum { DEPTH_MAX = 64 }; // a CNI result has four levels; the bound keeps the stack small

struct scan {
  const char *at, *end;
};

static bool value(struct scan *s, int depth);

static bool next_is(const struct scan *s, char c) { return s->at < s->end && *s->at == c; }

static bool take(struct scan *s, char c) {
  if (!next_is(s, c)) return false;
  s->at++;
  return true;
}

static void blanks(struct scan *s) {
  while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r')) s->at++;
}

static bool hex4(struct scan *s) {
  for (int i = 0; i < 4; i++, s->at++)
    if (s->at == s->end || !*s->at || !strchr("0123456789abcdefABCDEF", *s->at)) return false;
  return true;
}

static bool string(struct scan *s) {
  if (!take(s, '"')) return false;
  while (s->at < s->end) {
    unsigned char c = (unsigned char)*s->at++;
    if (c == '"') return true;
    if (c < 0x20) return false;
    if (c != '\\') continue;
    if (s->at == s->end) return false;
    c = (unsigned char)*s->at++;
    if (c == 'u' ? !hex4(s) : !c || !strchr("\"\\/bfnrt", c)) return false;
  }
  return false;
}

static bool digits(struct scan *s) {
  const char *start = s->at;
  while (s->at < s->end && *s->at >= '0' && *s->at <= '9') s->at++;
  return s->at > start;
}

static bool number(struct scan *s) {
  take(s, '-');
  if (!take(s, '0') && !digits(s)) return false;
  if (take(s, '.') && !digits(s)) return false;
  if (!take(s, 'e') && !take(s, 'E')) return true;
  if (!take(s, '+')) take(s, '-');
  return digits(s);
}

static bool word(struct scan *s, const char *expected) {
  size_t n = strlen(expected);
  if ((size_t)(s->end - s->at) < n || memcmp(s->at, expected, n) != 0) return false;
  s->at += n;
  return true;
}

static bool array(struct scan *s, int depth) {
  s->at++;
  blanks(s);
  if (take(s, ']')) return true;
  do {
    blanks(s);
    if (!value(s, depth)) return false;
    blanks(s);
  } while (take(s, ','));
  return take(s, ']');
}

// `name` NULL: no member is looked for.
static bool object(struct scan *s, int depth, const char *name, struct text *found) {
  s->at++;
  blanks(s);
  if (take(s, '}')) return true;
  do {
    blanks(s);
    const char *key = s->at;
    if (!string(s)) return false;
    size_t key_len = (size_t)(s->at - key) - 2; // without the quotes
    blanks(s);
    if (!take(s, ':')) return false;
    blanks(s);
    const char *start = s->at;
    if (!value(s, depth)) return false;
    if (name && key_len == strlen(name) && !memcmp(key + 1, name, key_len))
      *found = (struct text){start, (size_t)(s->at - start)};
    blanks(s);
  } while (take(s, ','));
  return take(s, '}');
}

static bool value(struct scan *s, int depth) {
  if (depth == DEPTH_MAX) return false;
  if (next_is(s, '{')) return object(s, depth + 1, NULL, NULL);
  if (next_is(s, '[')) return array(s, depth + 1);
  if (next_is(s, '"')) return string(s);
  return word(s, "true") || word(s, "false") || word(s, "null") || number(s);
}

bool json_member(struct text document, const char *name, struct text *found) {
  struct scan s = {document.at, document.at + document.len};
  *found = (struct text){0};
  blanks(&s);
  if (!next_is(&s, '{') || !object(&s, 1, name, found)) return false;
  blanks(&s);
  return s.at == s.end;
}

struct text json_plain(struct text value) {
  if (value.len < 2 || value.at[0] != '"' || memchr(value.at, '\\', value.len)) return (struct text){"", 0};
  return (struct text){value.at + 1, value.len - 2};
}
