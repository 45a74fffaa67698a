#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

struct amb_addr address_of(const struct sockaddr_storage *s) {
  struct amb_addr a = {0};
  if (s->ss_family == AF_INET) {
    const struct sockaddr_in *in = (const void *)s;
    memcpy(a.ip, mapped, sizeof mapped);
    memcpy(a.ip + 12, &in->sin_addr, 4);
    a.port = ntohs(in->sin_port);
  } else if (s->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in = (const void *)s;
    memcpy(a.ip, &in->sin6_addr, 16);
    a.port = ntohs(in->sin6_port);
  }
  return a;
}

bool address_is_v4(const struct amb_addr *a) { return !memcmp(a->ip, mapped, sizeof mapped); }

socklen_t address_to(const struct amb_addr *a, int family, struct sockaddr_storage *s) {
  memset(s, 0, sizeof *s);
  if (family == AF_INET6) {
    struct sockaddr_in6 *in = (void *)s;
    in->sin6_family = AF_INET6;
    in->sin6_port = htons((uint16_t)a->port);
    memcpy(&in->sin6_addr, a->ip, 16);
    return sizeof *in;
  }
  if (!address_is_v4(a)) return 0;
  struct sockaddr_in *in = (void *)s;
  in->sin_family = AF_INET;
  in->sin_port = htons((uint16_t)a->port);
  memcpy(&in->sin_addr, a->ip + 12, 4);
  return sizeof *in;
}

const char *address_text(const struct amb_addr *a, char text[ADDRESS_TEXT]) {
  char ip[INET6_ADDRSTRLEN];
  bool v4 = address_is_v4(a);
  inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? a->ip + 12 : a->ip, ip, sizeof ip); // cannot fail: family and size are right
  snprintf(text, ADDRESS_TEXT, v4 ? "%s:%u" : "[%s]:%u", ip, a->port & 0xffff);
  return text;
}

// The digits at the end of `text` after its last colon, and where that colon is; 0: there is no port.
static uint32_t split_port(const char *text, size_t n, size_t *host_len) {
  size_t colon = n;
  while (colon && text[colon - 1] != ':') colon--;
  if (!colon || n - colon < 1 || n - colon > 5) return 0;
  uint32_t port = 0;
  for (size_t i = colon; i < n; i++) {
    if (text[i] < '0' || text[i] > '9') return 0;
    port = port * 10 + (uint32_t)(text[i] - '0');
  }
  *host_len = colon - 1;
  return port <= 65535 ? port : 0;
}

bool address_parse(const char *text, size_t n, struct amb_addr *a) {
  size_t host_len;
  uint32_t port = split_port(text, n, &host_len);
  char host[INET6_ADDRSTRLEN];
  bool v6 = port && host_len > 2 && text[0] == '[' && text[host_len - 1] == ']';
  if (v6) text++, host_len -= 2;
  if (!port || !host_len || host_len >= sizeof host) return false;
  memcpy(host, text, host_len);
  host[host_len] = 0;
  *a = (struct amb_addr){.port = port};
  if (v6) return inet_pton(AF_INET6, host, a->ip) == 1;
  memcpy(a->ip, mapped, sizeof mapped);
  return inet_pton(AF_INET, host, a->ip + 12) == 1;
}

bool authority_is_valid(const char *text, size_t n) {
  struct amb_addr ignored;
  if (address_parse(text, n, &ignored)) return true;
  size_t host_len;
  if (!split_port(text, n, &host_len) || !host_len || host_len > 253) return false;
  bool letter = false; // digits and dots alone are an IPv4 address that did not parse
  for (size_t i = 0; i < host_len; i++) {
    char c = text[i];
    bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
    letter |= alpha;
    if (!alpha && c != '.' && !(c >= '0' && c <= '9')) return false;
  }
  return letter;
}

bool forwarded_port(const char *value, uint32_t *port) {
  const char *at = strcasestr(value, "for=");
  if (!at) return false;
  at += 4;
  bool quoted = *at == '"';
  at += quoted;
  size_t n = strcspn(at, quoted ? "\"" : ";, \t");
  struct amb_addr a;
  if (!address_parse(at, n, &a)) return false;
  *port = a.port;
  return true;
}

const char *forwarded_host(const char *value) { return value ? strcasestr(value, "host=") : NULL; }
