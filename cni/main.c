// The contract with the container runtime: CNI 1.1, chained. What the pod's network is was decided by the plugins
// before us; we hold the pod until the node's agent has captured it. Nothing of their result is changed.
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"

enum { STDIN_MAX = 1 << 20, REFUSAL_MAX = 16 << 10 };
enum { BAD_ENVIRONMENT = 4, IO_FAILURE = 5, UNDECODABLE = 6, BAD_CONFIG = 7, TRY_AGAIN_LATER = 11 }; // the spec's

static const char versions[] =
    "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";

static struct text spoken = {"\"1.0.0\"", 7}; // the configuration's cniVersion, as soon as it is known

static int say(struct text text) {
  bool good = fwrite(text.at, 1, text.len, stdout) == text.len && putchar('\n') != EOF && !fflush(stdout);
  return good ? 0 : 1;
}

static int fail(int code, const char *msg, const char *details) {
  printf("{\"cniVersion\":%.*s,\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n", (int)spoken.len, spoken.at, code, msg,
         details);
  return 1;
}

// The namespace of a Kubernetes pod; empty where the runtime does not serve Kubernetes, or names no namespace there is.
static struct text namespace_in(const char *args) {
  static const char key[] = "K8S_POD_NAMESPACE=";
  for (; args; args = strchr(args, ';') ? strchr(args, ';') + 1 : NULL) {
    if (strncmp(args, key, sizeof key - 1) != 0) continue;
    const char *name = args + sizeof key - 1;
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    if (len && len < 64 && (!name[len] || name[len] == ';')) return (struct text){name, len};
  }
  return (struct text){"", 0};
}

static int wait_for_agent(const struct question *q) {
  char details[512];
  bool known = standing_of(&q->setup, q->namespace) == STANDING_MESH;
  snprintf(details, sizeof details,
           "namespace %.*s %s. Kubernetes tries again by itself; if this lasts, look at the pods of the DaemonSet "
           "ambient-agent. If the mesh was taken off this node, run: ambient uninstall",
           (int)q->namespace.len, q->namespace.at, known ? "is in the mesh" : "is not known to be outside the mesh");
  return fail(TRY_AGAIN_LATER,
              "ambient: the agent on this node is not answering; the pod is kept waiting so that it never runs outside "
              "the mesh",
              details);
}

static int add(struct question *q, struct text result) {
  char refusal[REFUSAL_MAX];
  if (!result.at) return fail(BAD_CONFIG, "ambient: no prevResult", "ambient-cni is no network: chain it after one");
  if (!q->namespace.len) return say(result); // somebody else's container
  if (standing_of(&q->setup, q->namespace) == STANDING_REMOVED) return say(result);
  switch (ask(q, refusal, sizeof refusal)) {
  case ANSWER_PASS:
    return say(result);
  case ANSWER_REFUSED:
    say((struct text){refusal, strlen(refusal)});
    return 1;
  case ANSWER_NONE:
    break;
  }
  if (standing_of(&q->setup, q->namespace) >= STANDING_OUTSIDE) return say(result);
  return wait_for_agent(q);
}

// CHECK may fail, what cleans up may not: a pod whose end is an error can never be deleted.
static int tell(struct question *q) {
  char refusal[REFUSAL_MAX];
  bool checks = !strcmp(q->command, "CHECK");
  if (!q->namespace.len && strcmp(q->command, "GC") != 0) return 0;
  if (ask(q, refusal, sizeof refusal) != ANSWER_REFUSED || !checks) return 0;
  say((struct text){refusal, strlen(refusal)});
  return 1;
}

static bool read_stdin(struct text *config) {
  static char bytes[STDIN_MAX];
  config->at = bytes;
  for (ssize_t n; (n = read(STDIN_FILENO, bytes + config->len, sizeof bytes - config->len));) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    config->len += (size_t)n;
  }
  return config->len < sizeof bytes;
}

static int run(struct question *q) {
  static char run_dir[PATH_MAX] = "/run/ambient";
  struct text version, result, given, exempt, agents;
  bool adds = !strcmp(q->command, "ADD");
  if (!read_stdin(&q->config)) return adds ? fail(IO_FAILURE, "ambient: stdin is unreadable or over 1 MiB", "") : 0;
  if (!json_member(q->config, "cniVersion", &version) || !json_member(q->config, "prevResult", &result) ||
      !json_member(q->config, "runDir", &given) || !json_member(q->config, "exempt", &exempt) ||
      !json_member(q->config, "agents", &agents))
    return adds ? fail(UNDECODABLE, "ambient: the configuration on stdin is no JSON object", "") : 0;
  if (json_plain(version).len) spoken = version;
  struct text path = json_plain(given);
  if (given.at && (!path.len || path.len >= sizeof run_dir))
    return adds ? fail(BAD_CONFIG, "ambient: runDir is no plain path", "write it without escapes") : 0;
  if (path.len) snprintf(run_dir, sizeof run_dir, "%.*s", (int)path.len, path.at);
  q->setup = (struct setup){run_dir, json_plain(exempt), json_plain(agents)};
  return adds ? add(q, result) : tell(q);
}

int main(void) {
  static const char *const commands[] = {"ADD", "DEL", "CHECK", "GC"};
  struct question q = {.command = getenv("CNI_COMMAND"), .namespace = namespace_in(getenv("CNI_ARGS"))};
  if (!q.command) return fail(BAD_ENVIRONMENT, "ambient: CNI_COMMAND is not set", "this program is called by runtimes");
  if (!strcmp(q.command, "VERSION")) return say((struct text){versions, sizeof versions - 2});
  if (!strcmp(q.command, "STATUS")) return 0; // an agent that is away must not stop what is outside the mesh
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (!strcmp(q.command, commands[i])) return run(&q);
  return fail(BAD_ENVIRONMENT, "ambient: CNI_COMMAND is none that CNI 1.1 has", "");
}
