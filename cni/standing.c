#include "standing.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef SECOND
#define SECOND 1000 // ms; tests of the waiting have shorter ones
#endif

enum { SUCCESSION_MS = 120 * SECOND }; // a removed agent's successor is assigned within seconds, if there is to be one

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

// Whether kubelet has an agent's pod on this node, running or not: it keeps a directory for each until the pod is gone.
// What cannot be looked at has one.
static bool agent_belongs_here(struct text agents) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%.*s", (int)agents.len, agents.at);
  char *slash = n > 0 && n < (int)sizeof path ? strrchr(path, '/') : NULL;
  if (!slash) return true;
  *slash = 0;
  DIR *directory = opendir(path);
  if (!directory) return true;
  bool found = false;
  errno = 0;
  for (const struct dirent *entry; !found && (entry = readdir(directory));)
    found = !strncmp(entry->d_name, slash + 1, strlen(slash + 1));
  if (errno) found = true; // it could not be read to its end
  closedir(directory);
  return found;
}

// An agent that comes or goes changes the run directory; between one that is removed and the next there is a moment.
static bool was_one_lately(const char *run_dir) {
  struct timespec up, now;
  struct stat st;
  clock_gettime(CLOCK_BOOTTIME, &up); // neither can fail
  clock_gettime(CLOCK_REALTIME, &now);
  if (up.tv_sec * 1000LL < SUCCESSION_MS) return true;
  if (stat(run_dir, &st)) return false;
  long long ago = (now.tv_sec - st.st_mtim.tv_sec) * 1000LL + (now.tv_nsec - st.st_mtim.tv_nsec) / 1000000;
  return ago >= 0 && ago < SUCCESSION_MS; // before 0, somebody set the clock: that must not count for years
}

enum standing standing_of(const struct setup *setup, struct text namespace) {
  char path[PATH_MAX];
  if (in_run_dir(path, setup->run_dir, "uninstalled") && !access(path, F_OK)) return STANDING_REMOVED;
  if (names(setup->exempt, namespace)) return STANDING_OUTSIDE;
  enum standing found = STANDING_UNKNOWN;
  FILE *file = in_run_dir(path, setup->run_dir, "namespaces") ? fopen(path, "re") : NULL;
  if (file) {
    found = read_file(file, namespace);
    fclose(file);
  }
  bool orphan = found == STANDING_UNKNOWN && !agent_belongs_here(setup->agents) && !was_one_lately(setup->run_dir);
  return orphan ? STANDING_ORPHAN : found;
}
