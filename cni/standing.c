#include "standing.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ambient/agent/cni/namespaces.py writes this file: a version, then a line "outside NAME" or "mesh NAME" for each.
static const char version[] = "ambient-cni 1\n";

static bool in_run_dir(char *path, const char *run_dir, const char *name) {
  int n = snprintf(path, PATH_MAX, "%s/%s", run_dir, name);
  return n > 0 && n < PATH_MAX;
}

static bool names(struct text words, struct text name) {
  for (const char *at = words.at, *end = words.at + words.len; at < end;) {
    const char *blank = memchr(at, ' ', (size_t)(end - at));
    size_t len = (size_t)((blank ? blank : end) - at);
    if (len == name.len && !memcmp(at, name.at, len)) return true;
    at += len + 1;
  }
  return false;
}

static bool is_line(const char *line, const char *word, struct text name) {
  size_t n = strlen(word);
  return !strncmp(line, word, n) && !strncmp(line + n, name.at, name.len) && !strcmp(line + n + name.len, "\n");
}

static enum standing read_file(FILE *file, struct text namespace) {
  enum standing found = STANDING_UNKNOWN;
  char *line = NULL;
  size_t size = 0;
  if (getline(&line, &size, file) > 0 && !strcmp(line, version))
    while (found == STANDING_UNKNOWN && getline(&line, &size, file) > 0) {
      if (is_line(line, "outside ", namespace)) found = STANDING_OUTSIDE;
      if (is_line(line, "mesh ", namespace)) found = STANDING_MESH;
    }
  free(line);
  return found;
}

enum standing standing_of(const char *run_dir, struct text exempt, struct text namespace) {
  char path[PATH_MAX];
  if (in_run_dir(path, run_dir, "uninstalled") && !access(path, F_OK)) return STANDING_REMOVED;
  if (names(exempt, namespace)) return STANDING_OUTSIDE;
  FILE *file = in_run_dir(path, run_dir, "namespaces") ? fopen(path, "re") : NULL;
  if (!file) return STANDING_UNKNOWN;
  enum standing found = read_file(file, namespace);
  fclose(file);
  return found;
}
